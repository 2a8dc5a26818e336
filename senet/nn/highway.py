"""The highway gate (Srivastava et al. 2015, arXiv 1505.00387, Eq. 3), which SE is set beside in section 2."""

from torch import Tensor, nn

from senet.nn.attention import AttentionBlock
from senet.nn.config import SEConfig


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
