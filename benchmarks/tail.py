"""(a) The residual tail alone: fused, eager and compiled, forwards and backwards, per stage of SE-ResNet-50.

``floor`` is the time in which a copy of 1 GiB would move as many bytes as the fused tail must: 11 transfers of a
map, 4 forwards (x twice, shortcut, y) and 7 backwards (dy, y, x, then g written, g and x read, dx written). A map that
the cache of a GPU holds may beat it. ``bandwidth`` is floor over time: 1 is a tail as fast as a copy. ``saved_ms`` is
what the fused one saves against each other candidate. On a GPU every candidate is one CUDA graph.
"""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
from measure import Report, Step, arguments, copy_rate, graphed, interleave, median, parse, row, watched_tail
from torch import Tensor, nn

from senet import SEConfig
from senet.nn import ResidualTail, set_kernels

STAGES = {2: (256, 56), 3: (512, 28), 4: (1024, 14), 5: (2048, 7)}
TRANSFERS = 11


def random_maps(shape: tuple[int, ...], device: str, dtype: torch.dtype) -> list[Tensor]:
    """Return x and shortcut, which require gradients, and dy, all channels_last."""
    maps = [torch.randn(shape, device=device).to(dtype, memory_format=torch.channels_last) for _ in range(3)]
    return [m.requires_grad_(index < 2) for index, m in enumerate(maps)]


def step(tail: nn.Module, maps: list[Tensor]) -> Step:
    """Return a function that runs ``tail`` forwards and backwards."""
    x, shortcut, dy = maps
    leaves = [x, shortcut, *tail.parameters()]
    low = x.dtype != torch.float32

    def run() -> None:
        with torch.autocast(x.device.type, x.dtype) if low else nullcontext():
            y = tail(x, shortcut)
        torch.autograd.grad(y, leaves, dy)

    return run


def tails(se: SEConfig | None, maps: list[Tensor], compiled: bool) -> Iterator[tuple[str, Step]]:
    """Yield the candidates by name."""
    _, channels, _, _ = maps[0].shape
    device = maps[0].device.type
    for name in ("fused", "eager", "compiled"):
        # On a CPU, "auto" fuses with SE only; without, the row would repeat the eager one.
        if (name == "fused" and device == "cpu" and se is None) or (name == "compiled" and not compiled):
            continue
        tail = ResidualTail(channels, se).to(device, memory_format=torch.channels_last)
        set_kernels(tail, "auto" if name == "fused" else "eager")
        if name == "compiled":
            tail.compile()
        yield name, graphed(step(tail, maps), device)


def main(argv: Sequence[str] | None = None) -> Path:
    """Time every stage with and without SE."""
    parser = arguments(__doc__)
    parser.add_argument("--stages", type=int, nargs="*", default=list(STAGES))
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--name", default="tail")
    options = parse(parser, argv)
    rate = copy_rate(options.device, options.clock)
    settings = {
        "batch": options.batch,
        "maps": str(options.dtype).removeprefix("torch."),
        "copy_gb_s": rate / 1e9,
    }
    report = Report(options.out, options.name, options.device, **settings)
    for stage in options.stages:
        channels, size = STAGES[stage]
        maps = random_maps((options.batch, channels, size, size), options.device, options.dtype)
        floor = TRANSFERS * maps[0].numel() * maps[0].element_size() / rate
        for se in (SEConfig(), None):
            group = f"stage {stage}, {channels}x{size}x{size}, " + ("SE" if se else "no SE")

            def keep(seconds: dict[str, list[float]], group: str = group, floor: float = floor) -> None:
                fused = median(seconds["fused"]) if "fused" in seconds else None
                report.put(group, [
                    row(
                        group, name, values, floor_ms=floor * 1e3, bandwidth=floor / median(values),
                        saved_ms=None if fused is None or name == "fused" else (median(values) - fused) * 1e3,
                    )
                    for name, values in seconds.items()
                ])  # fmt: skip

            with watched_tail() as seen:
                candidates = dict(tails(se, maps, not options.no_compile))
                for run in candidates.values():
                    run()
            assert "fused" not in candidates or seen == {"triton" if options.device == "cuda" else "aten"}
            interleave(
                candidates, rounds=options.rounds, device=options.device, clock=options.clock, calls=3,
                after_round=keep,
            )  # fmt: skip
    return report.finish()


if __name__ == "__main__":
    main()
