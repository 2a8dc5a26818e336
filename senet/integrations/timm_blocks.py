"""timm's attention blocks in the places of the SE block."""

from typing import Any, cast

from timm.layers.create_attn import create_attn
from torch import Tensor, fx, nn

from senet.nn.attention import AttentionBlock
from senet.nn.config import SEConfig

GATES = {"eca": "gate", "cbam": "channel.gate", "ge": "gate", "gc": "gate"}
"""Where each block computes its gate per channel; ``gca`` adds and has none."""


class TimmBlock(AttentionBlock):
    """A block of ``timm.layers.create_attn`` under timm's name, as ``inner``: (B, C, H, W) -> the same.

    Hidden widths are ours, ``max(1, C // r)``. ``ge`` is timm's without its excitation, which is SE once more:
    ``sigmoid(mean(x)) * x``, GE-theta-minus with a global extent.
    """

    def __init__(self, channels: int, config: SEConfig) -> None:
        super().__init__(channels, config)
        options: dict[str, Any] = {"use_mlp": False} if config.block == "ge" else {}
        if self.hidden_channels:
            options["rd_channels"] = self.hidden_channels
        if config.reads("bias"):
            options["mlp_bias"] = config.bias
        self.inner: nn.Module = create_attn(config.block, channels, **options)  # type: ignore[no-untyped-call]

    @property
    def gating(self) -> nn.Module | None:
        """timm's sigmoid, C values per image; None for ``gca``."""
        path = GATES.get(self.config.block)
        return self.inner.get_submodule(path) if path else None

    def forward(self, x: Tensor) -> Tensor:
        """Return what timm's block makes of ``x``."""
        # timm's asks for the shape of the mean, which FX does not know.
        if self.config.block == "ge" and isinstance(cast(object, x), fx.Proxy):
            traced: Tensor = x * self.inner.get_submodule("gate")(x.mean((2, 3), keepdim=True))
            return traced
        scaled: Tensor = self.inner(x)
        return scaled
