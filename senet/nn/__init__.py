"""The SE block, its configuration, and the residual blocks that carry it."""

from senet.nn.blocks import BasicBlock, Bottleneck, ResidualTail, set_kernels
from senet.nn.config import SEConfig
from senet.nn.se import Excitation, SqueezeExcitation, place

__all__ = [
    "BasicBlock",
    "Bottleneck",
    "Excitation",
    "ResidualTail",
    "SEConfig",
    "SqueezeExcitation",
    "place",
    "set_kernels",
]
