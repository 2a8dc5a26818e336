"""(SE-)ResNet, (SE-)ResNeXt and SENet-154 for ImageNet: one plan (paper, Table 1).

ResNet: He et al., arXiv 1512.03385. ResNeXt: Xie et al., arXiv 1611.05431. SENet-154: the paper's appendix.
"""

from typing import Literal

from torch import nn

from senet.errors import UserError
from senet.models.network import Head, Network, build_stages
from senet.nn import BasicBlock, Bottleneck, SEConfig
from senet.nn.blocks import StrideOn, conv_bn, projection
from senet.ranges import ShareBelowOne

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
"""Units in stages 2 to 5; SENet-154 has those of depth 152."""
WIDTHS = {2: 64, 3: 128, 4: 256, 5: 512}
"""Channels within a unit of ResNet, by stage."""
StemPool = Literal["ceil", "pad"]


def stem(in_channels: int, widths: tuple[int, ...], kernel: int, pool: StemPool) -> nn.Sequential:
    """Return convolutions, the first with stride 2, and the pool: (B, in, H, W) -> (B, out, H / 4, W / 4).

    The pool is 3x3 with stride 2. "ceil" is Caffe's, as in the authors' networks: no padding, ceil rounding.
    "pad" is torchvision's: pad 1. Both give 56 x 56 from 112 x 112, from windows that lie one pixel apart.
    """
    layers: list[nn.Module] = []
    for index, out in enumerate(widths):
        layers += [*conv_bn(in_channels, out, kernel, 1 if index else 2), nn.ReLU(inplace=True)]
        in_channels = out
    layers += [nn.MaxPool2d(3, 2, ceil_mode=True) if pool == "ceil" else nn.MaxPool2d(3, 2, padding=1)]
    return nn.Sequential(*layers)


def resnet(
    depth: int,
    *,
    se: SEConfig | None = None,
    num_classes: int = 1000,
    in_channels: int = 3,
    groups: int = 1,
    senet: bool = False,
    stride_on: StrideOn = "1x1",
    stem_pool: StemPool = "ceil",
    branch_relu: bool = False,
    dropout: ShareBelowOne = 0.0,
) -> Network:
    """Build (SE-)ResNet, (SE-)ResNeXt or SENet-154. Head, stem and stages draw in this order.

    ResNeXt has 3x3 convolutions of ``groups`` groups, with 4 channels each in stage 2 (32x4d, 64x4d); they have the
    stride, in the authors' networks and in torchvision alike. SENet-154 is ResNeXt-152 (64x4d) with four changes: the
    first 1x1 of a bottleneck has half the usual channels, the 7x7 of the stem is three 3x3 (64, 64, 128), the
    projection of a stage that strides is 3x3, and dropout stands before the classifier.

    Args:
        depth: 18, 34 (basic blocks), 50, 101 or 152 (bottlenecks).
        se: SE configuration, or None for the plain twin.
        num_classes: outputs of the classifier.
        in_channels: channels of the image.
        groups: of the 3x3 convolutions, 1 or more than one.
        senet: whether to make the four changes.
        stride_on: which convolution of a bottleneck strides: "1x1" as the authors' released networks (3.86 G
            multiply-adds for ResNet-50, as the paper prints), "3x3" as torchvision (4.09 G).
        stem_pool: "ceil" as the authors, "pad" as torchvision.
        branch_relu: Cadene's extra ReLU in basic blocks, for timm's ``legacy_seresnet18/34`` weights only.
        dropout: before the classifier.
    """
    basic = depth < 50
    if branch_relu and not basic:
        raise UserError("branch_relu belongs to the basic blocks of ResNet-18/34 only")
    expansion = BasicBlock.expansion if basic else Bottleneck.expansion

    def make(stage: int, channels: int, stride: int) -> tuple[nn.Module, int]:
        stage_se, width = se.in_stage(stage) if se else None, WIDTHS[stage]
        out = width * expansion
        if basic:
            return BasicBlock(channels, out, stride=stride, se=stage_se, branch_relu=branch_relu), out
        if groups > 1:
            width = width * groups * 4 // 64
        block = Bottleneck(
            channels,
            width,
            out,
            stride=stride,
            stride_on=stride_on,
            groups=groups,
            reduce_width=width // 2 if senet else None,
            shortcut=projection(channels, out, stride, kernel=3 if stride > 1 else 1) if senet else None,
            se=stage_se,
        )
        return block, out

    head = Head(WIDTHS[5] * expansion, num_classes, dropout)
    widths, kernel = ((64, 64, 128), 3) if senet else ((64,), 7)
    layers = stem(in_channels, widths, kernel, stem_pool)
    # An unpadded 3x3 pool needs 2 pixels, hence an image of 3.
    min_size = 3 if stem_pool == "ceil" else 1
    return Network(layers, build_stages(BLOCKS[depth], widths[-1], make), head, min_size=min_size)
