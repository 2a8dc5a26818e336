"""Measure block sizes of the Triton passes on this GPU and write the best for every stage of SE-ResNet-50.

The file is a list of [pass, C, H * W, [pixels, channels, steps, warps]]; the other benchmarks take it with
``--blocks``, and its entries belong into ``senet.kernels.blocks.TUNED``. Maps are channels_last.
"""

import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from measure import Step, arguments, graphed, interleave, median, parse
from tail import STAGES
from torch import Tensor

from senet.kernels import residual_tail as passes
from senet.kernels.blocks import CHANNELS_LAST, TUNED, Blocks, Pass


def candidates(name: Pass, quick: bool) -> Iterator[Blocks]:
    """Yield the default, then alternatives: reductions walk far, elementwise passes a few tiles."""
    yield CHANNELS_LAST[name]
    reduction = name in ("moments", "gradient_sums")
    steps = (8, 16, 32) if reduction else (1, 2, 4)
    for pixels, channels, step, warps in itertools.product((16, 32, 64), (64, 128, 256), steps, (4, 8)):
        tile = pixels * channels
        if 2048 <= tile <= 8192 and not quick:
            yield Blocks(pixels, channels, step, warps)


def step(name: Pass, maps: list[Tensor]) -> Step:
    """Return a function that runs one pass alone."""
    x, y, dy = maps
    n, c = x.shape[:2]
    vector = torch.rand(c, device=x.device) + 0.5
    gate = torch.rand(n, c, device=x.device)
    if name == "moments":
        return lambda: passes.moments(x)
    if name == "merge":
        return lambda: passes.merge(x, y, vector, vector, vector, vector, gate)
    if name == "gradient_sums":
        return lambda: passes.gradient_sums(dy, y, x, vector, vector)
    return lambda: passes.grad_input(dy, x, vector, vector, vector, gate, gate, vector, vector, 0.01)


def best(name: Pass, maps: list[Tensor], rounds: int, quick: bool) -> tuple[Blocks, float, float]:
    """Return the fastest blocks, their seconds and the default's."""
    _, c, h, w = maps[0].shape
    device = maps[0].device.type
    key = (name, c, h * w)
    timed: dict[Blocks, Step] = {}
    for blocks in dict.fromkeys(candidates(name, quick)):
        TUNED[key] = blocks  # a graph remembers the kernel it was captured with
        timed[blocks] = graphed(step(name, maps), device)
    seconds = interleave({str(b): s for b, s in timed.items()}, rounds=rounds, device=device, calls=5)
    medians = {blocks: median(seconds[str(blocks)]) for blocks in timed}
    winner = min(medians, key=lambda blocks: medians[blocks])
    TUNED[key] = winner
    return winner, medians[winner], medians[CHANNELS_LAST[name]]


def main(argv: Sequence[str] | None = None) -> Path:
    """Tune every pass for every stage."""
    parser = arguments(__doc__)
    parser.add_argument("--stages", type=int, nargs="*", default=list(STAGES))
    parser.add_argument("--quick", action="store_true", help="time the defaults only")
    parser.add_argument("--size", type=int, help="of the map, instead of the stage's (for a trial on a CPU)")
    options = parse(parser, argv)
    found = []
    for stage in options.stages:
        channels, size = STAGES[stage]
        if options.size:
            channels, size = 8, options.size
        shape = (options.batch, channels, size, size)
        maps = [
            torch.randn(shape, device=options.device).to(options.dtype, memory_format=torch.channels_last)
            for _ in range(3)
        ]
        for name in CHANNELS_LAST:
            blocks, seconds, default = best(name, maps, options.rounds, options.quick)
            found.append([name, channels, size * size, [*vars(blocks).values()]])
            print(f"stage {stage} {name}: {blocks} {seconds * 1e6:.1f} us, default {default * 1e6:.1f} us")
    options.out.mkdir(parents=True, exist_ok=True)
    path: Path = options.out / "blocks.json"
    path.write_text("[\n" + ",\n".join(json.dumps(entry) for entry in found) + "\n]\n")
    return path


if __name__ == "__main__":
    main()
