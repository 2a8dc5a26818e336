"""(SE-)ResNet, (SE-)ResNeXt and SENet-154 for ImageNet: one plan, three kinds of unit (paper, Table 1).

ResNet: He et al., arXiv 1512.03385. ResNeXt: Xie et al., arXiv 1611.05431. SENet-154: the paper's appendix.
"""

from collections.abc import Callable
from typing import Literal

from torch import nn

from senet.errors import UserError
from senet.models.network import Head, Network, build_stages
from senet.nn import BasicBlock, Bottleneck, SEConfig
from senet.nn.blocks import StrideOn, conv, projection

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
"""Units in stages 2 to 5; SENet-154 has those of depth 152."""
StemPool = Literal["ceil", "pad"]


def stem(in_channels: int, widths: tuple[int, ...], kernel: int, pool: StemPool) -> nn.Sequential:
    """Return convolutions, the first with stride 2, and the pool: (B, in, H, W) -> (B, out, H / 4, W / 4).

    The pool is 3x3 with stride 2. "ceil" is Caffe's, as in the authors' networks: no padding, ceil rounding.
    "pad" is torchvision's: pad 1. Both give 56 x 56 from 112 x 112, from windows that lie one pixel apart.
    """
    if pool not in ("ceil", "pad"):
        raise UserError(f'stem_pool is "{pool}"; it must be "ceil" (the authors) or "pad" (torchvision)')
    layers: list[nn.Module] = []
    for index, out in enumerate(widths):
        layers += [conv(in_channels, out, kernel, 1 if index else 2), nn.BatchNorm2d(out)]
        layers += [nn.ReLU(inplace=True)]
        in_channels = out
    layers += [nn.MaxPool2d(3, 2, ceil_mode=True) if pool == "ceil" else nn.MaxPool2d(3, 2, padding=1)]
    return nn.Sequential(*layers)


def width(stage: int) -> int:
    """Return the channels within a unit of ResNet, in stages 2 to 5."""
    return (64, 128, 256, 512)[stage - 2]


def _network(
    depth: int,
    unit: Callable[[int, int, int], nn.Module],
    *,
    in_channels: int,
    stem_widths: tuple[int, ...] = (64,),
    stem_kernel: int = 7,
    expansion: int = Bottleneck.expansion,
    stem_pool: StemPool,
    num_classes: int,
    dropout: float,
) -> Network:
    """Return the network of ``unit(stage, in_channels, stride)``; head, stem, stages draw in this order."""

    def make(stage: int, channels: int, stride: int) -> tuple[nn.Module, int]:
        return unit(stage, channels, stride), width(stage) * expansion

    head = Head(width(5) * expansion, num_classes, dropout)
    layers = stem(in_channels, stem_widths, stem_kernel, stem_pool)
    # An unpadded 3x3 pool needs 2 pixels, hence an image of 3.
    min_size = 3 if stem_pool == "ceil" else 1
    return Network(layers, build_stages(BLOCKS[depth], stem_widths[-1], make), head, min_size=min_size)


def resnet(
    depth: int,
    *,
    se: SEConfig | None = None,
    num_classes: int = 1000,
    in_channels: int = 3,
    stride_on: StrideOn = "1x1",
    stem_pool: StemPool = "ceil",
    branch_relu: bool = False,
    dropout: float = 0.0,
) -> Network:
    """Build (SE-)ResNet-18/34/50/101/152.

    Args:
        depth: 18, 34 (basic blocks), 50, 101 or 152 (bottlenecks).
        se: SE configuration, or None for the plain twin.
        num_classes: outputs of the classifier.
        in_channels: channels of the image.
        stride_on: which convolution of a bottleneck strides: "1x1" as the authors' released networks (3.86 G
            multiply-adds for ResNet-50, as the paper prints), "3x3" as torchvision (4.09 G).
        stem_pool: "ceil" as the authors, "pad" as torchvision.
        branch_relu: Cadene's extra ReLU in basic blocks, for timm's ``legacy_seresnet18/34`` weights only.
        dropout: before the classifier.
    """
    if stride_on not in ("1x1", "3x3"):
        raise UserError(f'stride_on is "{stride_on}"; it must be "1x1" (the authors) or "3x3" (torchvision)')
    basic = depth < 50
    if branch_relu and not basic:
        raise UserError("branch_relu belongs to the basic blocks of ResNet-18/34 only")

    def unit(stage: int, channels: int, stride: int) -> nn.Module:
        stage_se, inner = se.in_stage(stage) if se else None, width(stage)
        if basic:
            return BasicBlock(channels, inner, stride=stride, se=stage_se, branch_relu=branch_relu)
        return Bottleneck(channels, inner, 4 * inner, stride=stride, stride_on=stride_on, se=stage_se)

    return _network(
        depth,
        unit,
        in_channels=in_channels,
        expansion=BasicBlock.expansion if basic else Bottleneck.expansion,
        stem_pool=stem_pool,
        num_classes=num_classes,
        dropout=dropout,
    )


def resnext(
    depth: int,
    *,
    se: SEConfig | None = None,
    num_classes: int = 1000,
    in_channels: int = 3,
    stem_pool: StemPool = "ceil",
    dropout: float = 0.0,
) -> Network:
    """Build (SE-)ResNeXt-50/101 (32x4d): ResNet's plan with 3x3 convolutions of 32 groups, 4 channels each.

    The stride of a stage is on the 3x3 convolution, in the authors' networks and in torchvision alike.
    Arguments as for ``resnet``.
    """

    def unit(stage: int, channels: int, stride: int) -> nn.Module:
        stage_se, inner = se.in_stage(stage) if se else None, width(stage)
        return Bottleneck(
            channels, 2 * inner, 4 * inner, stride=stride, stride_on="3x3", groups=32, se=stage_se
        )

    return _network(
        depth, unit, in_channels=in_channels, stem_pool=stem_pool, num_classes=num_classes, dropout=dropout
    )


def senet154(
    *,
    se: SEConfig | None = None,
    num_classes: int = 1000,
    in_channels: int = 3,
    stem_pool: StemPool = "ceil",
    dropout: float = 0.2,
) -> Network:
    """Build SENet-154, or with ``se=None`` its trunk: ResNeXt-152 (64x4d) with four changes.

    The first 1x1 of a bottleneck has half the usual channels, the 7x7 of the stem is three 3x3 (64, 64, 128),
    the projection of a stage that strides is 3x3, and dropout stands before the classifier. The stride is on
    the 3x3. Arguments as for ``resnet``.
    """

    def unit(stage: int, channels: int, stride: int) -> nn.Module:
        out = 4 * width(stage)
        return Bottleneck(
            channels,
            out,
            out,
            stride=stride,
            stride_on="3x3",
            groups=64,
            reduce_width=out // 2,
            shortcut=projection(channels, out, stride, kernel=3 if stride > 1 else 1),
            se=se.in_stage(stage) if se else None,
        )

    return _network(
        152,
        unit,
        in_channels=in_channels,
        stem_widths=(64, 64, 128),
        stem_kernel=3,
        stem_pool=stem_pool,
        num_classes=num_classes,
        dropout=dropout,
    )
