"""Measure block sizes of the Triton passes on this GPU and write the best for every stage of SE-ResNet-50.

The file is a list of [pass, C, H * W, [pixels, channels, steps, warps]]; the other benchmarks take it with
``--blocks``, and its entries belong into ``senet.kernels.tiling.TUNED``. Maps are channels_last.
All candidates are compiled first, many at a time; those that spill registers are dropped unmeasured.
"""

import itertools
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from measure import Step, arguments, graphed, interleave, median, parse
from tail import STAGES
from torch import Tensor

from senet.kernels import triton_passes as passes
from senet.kernels.passes import Norm
from senet.kernels.tiling import CHANNELS_LAST, TUNED, Pass, Tile


def candidates(name: Pass, quick: bool) -> Iterator[Tile]:
    """Yield the default, then alternatives: reductions walk far, elementwise passes a few tiles."""
    yield CHANNELS_LAST[name]
    reduction = name in ("moments", "gradient_sums")
    steps = (8, 16, 32) if reduction else (1, 2, 4)
    for pixels, channels, step, warps in itertools.product((16, 32, 64), (64, 128, 256), steps, (4, 8)):
        if 2048 <= pixels * channels <= 8192 and not quick:
            yield Tile(pixels, channels, step, warps)


def step(name: Pass, maps: list[Tensor]) -> Step:
    """Return a function that runs one pass alone."""
    x, y, dy = maps
    n, c = x.shape[:2]
    vector = torch.rand(c, device=x.device) + 0.5
    norm = Norm(vector, vector, vector, vector)
    gate = torch.rand(n, c, device=x.device)
    if name == "moments":
        return lambda: passes.moments(x)
    if name == "merge":
        return lambda: passes.merge(x, y, norm, gate)
    if name == "gradient_sums":
        return lambda: passes.gradient_sums(dy, None, y, x, norm)
    return lambda: passes.grad_input(dy, x, norm, gate, gate, (vector, vector), 0.01)


@dataclass(frozen=True)
class Candidate:
    """A tile of a pass over maps of one size."""

    name: Pass
    tile: Tile
    channels: int
    size: int


class Watched:
    """A kernel that keeps what it was compiled to."""

    def __init__(self, kernel: Any, seen: list[Any]) -> None:
        self.kernel, self.seen = kernel, seen

    def __getitem__(self, programs: tuple[int, ...]) -> Any:
        return lambda *arguments, **keywords: self.seen.append(self.kernel[programs](*arguments, **keywords))


def spilled(candidate: Candidate, device: str, dtype: torch.dtype) -> int:
    """Compile a candidate by launching it on one image, and return how many registers of it do not fit.

    What it was compiled to stays in Triton's cache, where the process that measures finds it.
    """
    seen: list[Any] = []
    kernels = passes.kernels
    passes.kernels = SimpleNamespace(**{
        name: Watched(kernel, seen) for name, kernel in vars(kernels).items() if name.endswith("_kernel")
    })  # fmt: skip
    try:
        TUNED[candidate.name, candidate.channels, candidate.size**2] = candidate.tile
        step(
            candidate.name,
            random_maps((1, candidate.channels, candidate.size, candidate.size), device, dtype),
        )()
    finally:
        passes.kernels = kernels
    return int(getattr(seen[-1], "n_spills", 0))  # the interpreter compiles nothing


def fitting(found: list[Candidate], device: str, dtype: torch.dtype, processes: int) -> list[Candidate]:
    """Return the candidates that spill nothing, compiled by ``processes`` at a time, and all the defaults."""
    ask = partial(spilled, device=device, dtype=dtype)
    if processes < 2:
        spills = list(map(ask, found))
    else:
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            spills = list(pool.map(ask, found, chunksize=4))
    for candidate, spill in zip(found, spills, strict=True):
        if spill:
            print(f"dropped {candidate}: spills {spill}")
    return [c for c, spill in zip(found, spills, strict=True) if not spill or c.tile == CHANNELS_LAST[c.name]]


def best(tiles: list[Tile], name: Pass, maps: list[Tensor], rounds: int) -> tuple[Tile, float, float]:
    """Return the fastest tile, its seconds and the default's."""
    _, c, h, w = maps[0].shape
    device = maps[0].device.type
    key = (name, c, h * w)
    timed: dict[Tile, Step] = {}
    for tile in tiles:
        TUNED[key] = tile  # a graph remembers the kernel it was captured with
        timed[tile] = graphed(step(name, maps), device)
    seconds = interleave({str(b): s for b, s in timed.items()}, rounds=rounds, device=device, calls=5)
    medians = {tile: median(seconds[str(tile)]) for tile in timed}
    winner = min(medians, key=lambda tile: medians[tile])
    TUNED[key] = winner
    return winner, medians[winner], medians[CHANNELS_LAST[name]]


def random_maps(shape: tuple[int, ...], device: str, dtype: torch.dtype) -> list[Tensor]:
    """Return three channels_last maps."""
    return [torch.randn(shape, device=device).to(dtype, memory_format=torch.channels_last) for _ in range(3)]


def main(argv: Sequence[str] | None = None) -> Path:
    """Tune every pass for every stage; the file is written anew after each."""
    parser = arguments(__doc__)
    parser.add_argument("--stages", type=int, nargs="*", default=list(STAGES))
    parser.add_argument("--passes", nargs="*", default=list(CHANNELS_LAST), choices=list(CHANNELS_LAST))
    parser.add_argument("--quick", action="store_true", help="time the defaults only")
    parser.add_argument("--size", type=int, help="of the map, instead of the stage's (for a trial on a CPU)")
    parser.add_argument("--processes", type=int, help="that compile (16 on a GPU, 1 on a CPU)")
    options = parse(parser, argv)
    shapes = {stage: (8, options.size) if options.size else STAGES[stage] for stage in options.stages}
    every = [
        Candidate(name, tile, *shapes[stage])
        for stage in options.stages
        for name in options.passes
        for tile in dict.fromkeys(candidates(name, options.quick))
    ]
    processes = options.processes or (16 if options.device == "cuda" else 1)
    fit = fitting(every, options.device, options.dtype, processes)
    found = []
    options.out.mkdir(parents=True, exist_ok=True)
    path: Path = options.out / "blocks.json"
    for stage, (channels, size) in shapes.items():
        maps = random_maps((options.batch, channels, size, size), options.device, options.dtype)
        for name in options.passes:
            tiles = [c.tile for c in fit if (c.name, c.channels, c.size) == (name, channels, size)]
            tile, seconds, default = best(tiles, name, maps, options.rounds)
            found.append([name, channels, size * size, [*vars(tile).values()]])
            print(
                f"stage {stage} {name}: {tile} {seconds * 1e6:.1f} us, default {default * 1e6:.1f} us",
                flush=True,
            )
            path.write_text("[\n" + ",\n".join(json.dumps(entry) for entry in found) + "\n]\n")
    return path


if __name__ == "__main__":
    main()
