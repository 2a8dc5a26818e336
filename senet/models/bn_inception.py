"""(SE-)BN-Inception as in the authors' prototxt (Ioffe and Szegedy, arXiv 1502.03167; with SE, Table 2)."""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from senet.models.network import Head, Network
from senet.nn import SEConfig, place
from senet.nn.blocks import ConvUnit
from senet.ranges import ShareBelowOne


class Plan(NamedTuple):
    """Channels of one module: 1x1, 3x3 (reduce, out), double 3x3 (reduce, out), and the pooling branch."""

    one: int
    three: tuple[int, int]
    double: tuple[int, int]
    pool: Literal["avg", "max"]
    projection: int

    @property
    def stride(self) -> int:
        """2 in the modules without 1x1 branch and without a projection after their max pool."""
        return 1 if self.one else 2


PLANS = {
    3: {
        "a": Plan(64, (64, 64), (64, 96), "avg", 32),
        "b": Plan(64, (64, 96), (64, 96), "avg", 64),
        "c": Plan(0, (128, 160), (64, 96), "max", 0),
    },
    4: {
        "a": Plan(224, (64, 96), (96, 128), "avg", 128),
        "b": Plan(192, (96, 128), (96, 128), "avg", 128),
        "c": Plan(160, (128, 160), (128, 160), "avg", 128),
        "d": Plan(96, (128, 192), (160, 192), "avg", 128),
        "e": Plan(0, (128, 192), (192, 256), "max", 0),
    },
    5: {
        "a": Plan(352, (192, 320), (160, 224), "avg", 128),
        "b": Plan(352, (192, 320), (192, 224), "max", 128),
    },
}


class StridePool(nn.Module):
    """3x3 max pool with stride 2 of modules 3c and 4e: (B, C, H, W) -> (B, C, ceil(H / 2), ceil(W / 2)).

    On even sides, as at 224 x 224, it is Caffe's unpadded pool with ceil rounding. On odd sides Caffe's gives
    one pixel less than the strided convolutions it is concatenated with, and the network is undefined; here
    one more window at the border makes them agree.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return the pooled map."""
        return F.max_pool2d(F.pad(x, (0, 2, 0, 2), value=-torch.inf), 3, 2)


class InceptionModule(nn.Module):
    """Four branches (three where the module strides), concatenated, then SE on the whole.

    Shapes: (B, in, H, W) -> (B, ``out_channels``, H / stride, W / stride), rounded up.
    """

    def __init__(self, in_channels: int, plan: Plan, se: SEConfig | None) -> None:
        super().__init__()
        reduce3, out3 = plan.three
        reduce5, out5 = plan.double
        branches: dict[str, nn.Module] = {"1x1": ConvUnit(in_channels, plan.one, 1)} if plan.one else {}
        branches["3x3"] = nn.Sequential(
            ConvUnit(in_channels, reduce3, 1), ConvUnit(reduce3, out3, 3, plan.stride)
        )
        branches["double3x3"] = nn.Sequential(
            ConvUnit(in_channels, reduce5, 1),
            ConvUnit(reduce5, out5, 3),
            ConvUnit(out5, out5, 3, plan.stride),
        )
        if plan.projection:
            # Caffe's average counts the padding, as torch's does.
            pool = nn.AvgPool2d(3, 1, 1) if plan.pool == "avg" else nn.MaxPool2d(3, 1, 1)
            branches["pool"] = nn.Sequential(pool, ConvUnit(in_channels, plan.projection, 1))
        else:
            branches["pool"] = StridePool()
        self.branches = nn.ModuleDict(branches)
        self.out_channels = plan.one + out3 + out5 + (plan.projection or in_channels)
        self.se = place(se, "standard", self.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return the module's output."""
        return self.se(torch.cat([branch(x) for branch in self.branches.values()], dim=1))


def bn_inception(
    *, se: SEConfig | None = None, num_classes: int = 1000, in_channels: int = 3, dropout: ShareBelowOne = 0.0
) -> Network:
    """Build (SE-)BN-Inception: 11,285,224 parameters, 11,931,622 with SE.

    Stages 3, 4, 5 hold the modules 3a-3c, 4a-4e, 5a-5b as their blocks (``SE_3_1`` is 3a), the striding 3c
    and 4e included; all ten carry SE, on the concatenation. There is no shortcut, so that only the placement
    "standard" exists.

    Args:
        se: SE configuration, or None for the plain twin.
        num_classes: outputs of the classifier.
        in_channels: channels of the image.
        dropout: before the classifier; the prototxt has none.
    """
    stem = nn.Sequential(
        ConvUnit(in_channels, 64, 7, 2),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        ConvUnit(64, 64, 1),
        ConvUnit(64, 192, 3),
        nn.MaxPool2d(3, 2, ceil_mode=True),
    )
    channels = 192
    stages: dict[int, nn.Module] = {}
    for stage, plans in PLANS.items():
        stages[stage] = modules = nn.Sequential()
        for letter, plan in plans.items():
            module = InceptionModule(channels, plan, se.in_stage(stage) if se else None)
            modules.add_module(letter, module)
            channels = module.out_channels
    return Network(stem, stages, Head(channels, num_classes, dropout), min_size=7)
