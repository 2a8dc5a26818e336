"""What may fill the places of a trunk: what the SE block and its rivals have in common, and two of those.

The highway gate (Srivastava et al. 2015, arXiv 1505.00387, Eq. 3), which SE is set beside in section 2, and the soft
mask branch of trunk-and-mask attention (Wang et al. 2017, arXiv 1704.06904), named there too.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from senet.nn.config import SEConfig


class AttentionBlock(nn.Module):
    """A block that scales a map, or adds to it, by what it sees in it: (B, C, H, W) -> (B, C, H, W).

    Attributes:
        channels: C.
        config: what it was built from.
    """

    def __init__(self, channels: int, config: SEConfig) -> None:
        super().__init__()
        self.channels = channels
        self.config = config

    @property
    def hidden_channels(self) -> int | None:
        """Width of the bottleneck between C and C; None without one."""
        return self.config.hidden_channels(self.channels) if self.config.reads("reduction") else None

    @property
    def gating(self) -> nn.Module | None:
        """The submodule whose output is the gate, C values per image or position, for hooks; None without a gate."""
        return None


class HighwayGate(AttentionBlock):
    """``t * branch + (1 - t) * shortcut`` with ``t = sigmoid(W shortcut + b)``: two (B, C, H, W) -> one.

    W is a 1x1 convolution of C to C channels, as in the exclusive gating of He et al. 2016 (arXiv 1603.05027, section
    3.1); b starts at -1, a value that the highway authors name, so that a unit starts by carrying its shortcut on. In
    the units that change the shape the shortcut is the projected one.
    """

    def __init__(self, channels: int, config: SEConfig) -> None:
        super().__init__(channels, config)
        linear = nn.Conv2d(channels, channels, kernel_size=1)
        nn.init.kaiming_normal_(linear.weight, mode="fan_in", nonlinearity="sigmoid")
        assert linear.bias is not None
        nn.init.constant_(linear.bias, -1.0)
        self.transform = nn.Sequential(linear, nn.Sigmoid())

    @property
    def gating(self) -> nn.Module:
        """What makes t, a map (B, C, H, W)."""
        return self.transform

    def forward(self, branch: Tensor, shortcut: Tensor) -> Tensor:
        """Return the weighted sum."""
        t: Tensor = self.transform(shortcut)
        return t * branch + (1 - t) * shortcut


def merge(block: nn.Module, branch: Tensor, shortcut: Tensor) -> Tensor:
    """Return a residual unit's sum, ``block(branch) + shortcut``; a highway gate weighs both.

    Args:
        block: what stands before the addition, or ``nn.Identity()``.
        branch: (B, C, H, W).
        shortcut: (B, C, H, W).
    """
    return block(branch, shortcut) if isinstance(block, HighwayGate) else block(branch) + shortcut


class SoftMask(AttentionBlock):
    """``(1 + m(x)) * x`` (their Eq. 3), m a sigmoid per channel and position: (B, C, H, W) -> the same.

    Their mask sees a unit's input, goes down and up by pooling and interpolation around residual units, and ends in
    1x1 convolutions. Here it sees the map that it masks, goes down once, and is as wide as SE's excitation:
    ``m = sigmoid(W3 up(relu(W2 down(relu(W1 x)))))``, W1 (C -> C/r) and W3 (C/r -> C) 1x1, W2 3x3, ``down`` a 3x3 max
    pool of stride 2, ``up`` bilinear.
    """

    def __init__(self, channels: int, config: SEConfig) -> None:
        super().__init__(channels, config)
        hidden = config.hidden_channels(channels)
        self.down = nn.Sequential(
            nn.Conv2d(channels, hidden, 1, bias=config.bias),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, 1),
            nn.Conv2d(hidden, hidden, 3, padding=1, bias=config.bias),
            nn.ReLU(inplace=True),
        )
        self.up = nn.Sequential(nn.Conv2d(hidden, channels, 1, bias=config.bias), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """Mask ``x``."""
        low = F.interpolate(self.down(x), size=x.shape[-2:], mode="bilinear")
        return x + x * self.up(low)
