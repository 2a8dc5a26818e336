"""The SE block, its configuration, and the residual blocks that carry it."""

from typing import TYPE_CHECKING

from senet.lazy import lazily

if TYPE_CHECKING:
    from senet.nn.attention import AttentionBlock
    from senet.nn.blocks import BasicBlock, Bottleneck
    from senet.nn.config import SEConfig
    from senet.nn.highway import merge
    from senet.nn.se import Excitation, SqueezeExcitation, build_block, place, register_gate, register_squeeze
    from senet.nn.tail import ResidualTail, set_kernels

__all__ = [
    "AttentionBlock",
    "BasicBlock",
    "Bottleneck",
    "Excitation",
    "ResidualTail",
    "SEConfig",
    "SqueezeExcitation",
    "build_block",
    "merge",
    "place",
    "register_gate",
    "register_squeeze",
    "set_kernels",
]

__getattr__ = lazily(
    __name__,
    {
        **dict.fromkeys(("BasicBlock", "Bottleneck"), "senet.nn.blocks"),
        **dict.fromkeys(("ResidualTail", "set_kernels"), "senet.nn.tail"),
        **dict.fromkeys(
            ("Excitation", "SqueezeExcitation", "build_block", "place", "register_gate", "register_squeeze"),
            "senet.nn.se",
        ),
        "AttentionBlock": "senet.nn.attention",
        "SEConfig": "senet.nn.config",
        "merge": "senet.nn.highway",
    },
)
