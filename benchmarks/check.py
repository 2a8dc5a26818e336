"""What a GPU is asked first: what it is, how fast it copies, and whether the fused tail is right on it.

The tail runs at the real shapes of SE-ResNet-50's stages, forwards and backwards, against the eager definition in
float64: its error may be twice that of the eager tail in the same types, and some roundings. Then NaN, a mean of
1000, and sizes that no tile divides. The status is 1 if anything is wrong: nothing else is worth measuring then.
"""

import copy
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext

import torch
from measure import Report, arguments, copy_rate, parse
from tail import STAGES
from torch import Tensor

from senet import SEConfig
from senet.nn import ResidualTail, set_kernels

Results = dict[str, Tensor]


def run(tail: ResidualTail, maps: list[Tensor], kernels: str, dtype: torch.dtype) -> Results:
    """Return output, gradients and running statistics of one step with maps of ``dtype``."""
    tail = copy.deepcopy(tail).to(torch.promote_types(dtype, torch.float32))
    set_kernels(tail, kernels)
    x, shortcut, dy = (m.to(dtype).detach() for m in maps)
    leaves = {"x": x.requires_grad_(), "shortcut": shortcut.requires_grad_(), **dict(tail.named_parameters())}
    low = dtype in (torch.bfloat16, torch.float16)
    with torch.autocast(x.device.type, dtype) if low else nullcontext():
        y = tail(x, shortcut)
    gradients = torch.autograd.grad(y, list(leaves.values()), dy)
    named = {f"d{name}": gradient for name, gradient in zip(leaves, gradients, strict=True)}
    return {"y": y.detach(), **named, **{n: b for n, b in tail.named_buffers() if b.is_floating_point()}}


def errors(
    tail: ResidualTail, maps: list[Tensor], kernels: str, dtype: torch.dtype
) -> Iterator[tuple[str, float]]:
    """Yield every result's name, and its error over what is allowed; above 1 is wrong."""
    low = [m.to(dtype) for m in maps]
    truth = run(tail, low, "eager", torch.float64)
    # No gradient where the ReLU is nearly shut: there a rounding decides.
    low[2] = torch.where(truth["y"] > 0.1, low[2], 0).to(dtype)
    truth = run(tail, low, "eager", torch.float64)
    eager, fused = run(tail, low, "eager", dtype), run(tail, low, kernels, dtype)
    for name, exact in truth.items():
        scale = max(1.0, exact.abs().max().item())
        of_eager, of_fused = ((found[name].double() - exact).abs().max().item() for found in (eager, fused))
        yield (
            name,
            of_fused
            / (2 * of_eager + 2e-5 * scale + torch.finfo(dtype).eps * scale * (dtype != torch.float32)),
        )


def cases(batch: int, tiny: bool) -> Iterator[tuple[str, tuple[int, int, int, int], float]]:
    """Yield name, shape and mean of the maps that are tried."""
    for stage, (channels, size) in STAGES.items():
        yield (
            f"stage {stage}",
            (batch, 8 if tiny else channels, 7 if tiny else size, 7 if tiny else size),
            0.0,
        )
    yield "odd sizes", (3, 19, 13, 7), 0.0
    yield "mean 1000", (4, 8 if tiny else 256, 14, 14), 1000.0


def main(argv: Sequence[str] | None = None) -> int:
    """Check, print and keep what was found."""
    parser = arguments(__doc__)
    parser.add_argument("--tiny", action="store_true")
    options = parse(parser, argv)
    device, kernels = options.device, "triton"
    report = Report(options.out, "check", device, copy_gb_s=copy_rate(device, options.clock) / 1e9)
    torch.backends.cuda.matmul.allow_tf32 = False
    wrong = 0
    for name, shape, mean in cases(min(options.batch, 32), options.tiny):
        for dtype in (torch.float32, torch.bfloat16)[: 1 if mean else 2]:
            for se in (SEConfig(reduction=4), None):
                torch.manual_seed(0)
                maps = [
                    torch.randn(shape, device=device).to(memory_format=torch.channels_last) for _ in range(3)
                ]
                maps[0] += mean
                tail = ResidualTail(shape[1], se).to(device, memory_format=torch.channels_last)
                with torch.no_grad():
                    for parameter in tail.parameters():
                        parameter.normal_(std=parameter[0].numel() ** -0.5)
                worst = max(errors(tail, maps, kernels, dtype), key=lambda found: found[1])
                wrong += not worst[1] <= 1
                label = f"{name}, {str(dtype).removeprefix('torch.')}, {'SE' if se else 'plain'}"
                row = {"group": name, "name": label, "worst": worst[0], "error over allowed": worst[1]}
                report.put(label, [row])
                print(f"{label}: {worst[0]} {worst[1]:.3f} of what is allowed", flush=True)
    sick = torch.randn(2, 8, 4, 5, device=device)
    sick[0, 3, 1, 1] = torch.nan
    tail = ResidualTail(8, SEConfig(reduction=4)).to(device)
    set_kernels(tail, kernels)
    tail(sick, torch.zeros_like(sick))
    hidden = int(not tail.bn.running_var[3].isnan())
    print(f"NaN reaches the running variance: {not hidden}; wrong: {wrong + hidden}")
    return int(bool(wrong + hidden))


if __name__ == "__main__":
    sys.exit(main())
