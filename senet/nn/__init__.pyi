from .attention import AttentionBlock as AttentionBlock, merge as merge
from .blocks import BasicBlock as BasicBlock, Bottleneck as Bottleneck
from .config import SEConfig as SEConfig
from .se import (
    Excitation as Excitation,
    SqueezeExcitation as SqueezeExcitation,
    build_block as build_block,
    place as place,
    register_gate as register_gate,
    register_squeeze as register_squeeze,
)
from .tail import ResidualTail as ResidualTail, set_kernels as set_kernels
