"""One residual tail in every implementation, and what it gives."""

import copy
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from senet import SEConfig
from senet.kernels.tail import residual_tail
from senet.nn import ResidualTail, SqueezeExcitation

TRITON_DEVICE = "cuda" if torch.cuda.is_available() else "cpu"  # on a CPU, Triton's interpreter
SE = SEConfig(reduction=4)
KERNELS = {"eager": "eager", "aten": "auto", "triton": "triton"}


@pytest.fixture(params=["aten", "triton"])
def backend(request: pytest.FixtureRequest) -> str:
    """A backend of the fused operator."""
    return request.param


@dataclass
class Case:
    """A tail with random parameters, and everything that goes into one step of it."""

    tail: ResidualTail
    x: Tensor
    shortcut: Tensor | None
    dy: Tensor

    def run(
        self, backend: str, dtype: torch.dtype, maps: torch.dtype | None = None, autocast: bool = True
    ) -> dict[str, Tensor]:
        """Return output, gradients and running statistics.

        Args:
            backend: of the fused operator, or "eager".
            dtype: of the maps. Parameters are float32 (float64 for float64 maps), as in mixed precision.
            maps: a lower precision to which the maps are rounded first.
            autocast: False leaves the autocast region of a low precision out.
        """
        device = TRITON_DEVICE if backend == "triton" else "cpu"
        tail = copy.deepcopy(self.tail).to(device, torch.promote_types(dtype, torch.float32))
        x, shortcut, dy = (
            None if m is None else m.to(maps or dtype).to(device, dtype).detach()
            for m in (self.x, self.shortcut, self.dy)
        )
        leaves = {"x": x, "shortcut": shortcut, **dict(tail.named_parameters())}
        leaves = {name: leaf.requires_grad_() for name, leaf in leaves.items() if leaf is not None}
        low = autocast and dtype in (torch.bfloat16, torch.float16)
        se = tail.se if isinstance(tail.se, SqueezeExcitation) else None
        with torch.autocast(device, dtype) if low else nullcontext():
            y = residual_tail(x, shortcut, tail.bn, se, KERNELS[backend])
        gradients = torch.autograd.grad(y, list(leaves.values()), dy)
        named = {f"d{name}": gradient for name, gradient in zip(leaves, gradients, strict=True)}
        results = {"y": y, **named, **dict(tail.named_buffers())}
        return {name: result.detach().cpu() for name, result in results.items()}


def make_case(
    shape: tuple[int, int, int, int],
    se: SEConfig | None = SE,
    layout: torch.memory_format = torch.channels_last,
    has_shortcut: bool = True,
    mean: float = 0.0,
    training: bool = True,
) -> Case:
    """Return a case with standard normal maps, x around ``mean``.

    No gradient flows where y is zero or nearly so: there a rounding decides whether the ReLU is open.
    """
    generator = torch.Generator().manual_seed(sum(shape))
    tail = ResidualTail(shape[1], se).train(training)
    for parameter in tail.parameters():
        fan_in = parameter[0].numel()
        parameter.data = torch.randn(parameter.shape, generator=generator) / fan_in**0.5
    tail.bn.running_mean += torch.randn(shape[1], generator=generator) * 0.1 + mean
    tail.bn.running_var += torch.rand(shape[1], generator=generator)
    x, shortcut, dy = (
        torch.randn(shape, generator=generator).contiguous(memory_format=layout) for _ in range(3)
    )
    made = Case(tail, x + mean, shortcut if has_shortcut else None, dy)
    before = made.run("eager", torch.float64, maps=torch.bfloat16)["y"]
    made.dy = dy * (before > 0.1)
    return made


@pytest.fixture
def case(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Case]:
    """Return ``make_case``, with the ATen passes in use for maps that are too small to be worth them."""
    monkeypatch.setattr("senet.kernels.tail._not_worthwhile_on_cpu", lambda *_: None)
    return make_case
