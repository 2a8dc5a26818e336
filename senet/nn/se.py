"""The Squeeze-and-Excitation block: squeeze -> excitation -> scale (paper section 3)."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from senet.nn.config import Placement, SEConfig

GATES: dict[str, Callable[[Tensor], Tensor]] = {"sigmoid": torch.sigmoid, "tanh": torch.tanh, "relu": F.relu}


def _average(x: Tensor) -> Tensor:
    return x.mean((2, 3), keepdim=True)


def _maximum(x: Tensor) -> Tensor:
    return x.amax((2, 3), keepdim=True)


def _no_squeeze(x: Tensor) -> Tensor:
    return x


SQUEEZES: dict[str, Callable[[Tensor], Tensor]] = {"avg": _average, "max": _maximum, "none": _no_squeeze}


class Excitation(nn.Module):
    """The gate ``s = f(W2 relu(W1 z + b1) + b2)`` (Eq. 3), f the sigmoid unless ablated.

    The FC layers are 1x1 convolutions, so the same module serves NoSqueeze.
    Shapes: z (B, C, 1, 1) -> gate (B, C, 1, 1); for NoSqueeze (B, C, H, W) -> (B, C, H, W).
    """

    def __init__(self, channels: int, config: SEConfig) -> None:
        super().__init__()
        hidden = config.hidden_channels(channels)
        self.fc1 = nn.Conv2d(channels, hidden, kernel_size=1, bias=config.bias)
        self.fc2 = nn.Conv2d(hidden, channels, kernel_size=1, bias=config.bias)
        self.gate = config.gate
        # Fan-in: with fan-out, fc1 (C -> C/r) would start with sqrt(r) times the right scale and saturate s.
        for fc in (self.fc1, self.fc2):
            nn.init.kaiming_normal_(fc.weight, mode="fan_in", nonlinearity="relu")
            if fc.bias is not None:
                nn.init.zeros_(fc.bias)

    def forward(self, z: Tensor) -> Tensor:
        """Return the gate for the squeezed descriptor ``z``."""
        return GATES[self.gate](self.fc2(F.relu(self.fc1(z), inplace=True)))

    def extra_repr(self) -> str:
        """Name the gate function in ``repr``."""
        return f"gate={self.gate}"


class SqueezeExcitation(nn.Module):
    """``x * excitation(squeeze(x))``: (B, C, H, W) -> (B, C, H, W).

    ``excitation`` is a submodule whose output is the gate, so a forward hook on it sees every gate.
    """

    def __init__(self, channels: int, config: SEConfig) -> None:
        super().__init__()
        self.channels = channels
        self.config = config
        self.excitation = Excitation(channels, config)

    @property
    def hidden_channels(self) -> int:
        """Width of the excitation's hidden layer."""
        return self.excitation.fc1.out_channels

    def gate(self, x: Tensor) -> Tensor:
        """Return the gate (B, C, 1, 1) of ``x`` without applying it."""
        gate: Tensor = self.excitation(SQUEEZES[self.config.squeeze](x))
        return gate

    def forward(self, x: Tensor) -> Tensor:
        """Scale every channel of ``x`` by its gate."""
        return x * self.gate(x)

    def extra_repr(self) -> str:
        """Name the squeeze in ``repr``."""
        return f"channels={self.channels}, squeeze={self.config.squeeze}"


def place(se: SEConfig | None, placement: Placement, channels: int) -> nn.Module:
    """Return an SE block if ``se`` belongs at ``placement``, else ``nn.Identity()``."""
    if se is not None and se.placement == placement:
        return SqueezeExcitation(channels, se)
    return nn.Identity()
