"""(SE-)ResNet for ImageNet (He et al., arXiv 1512.03385; with SE, paper Table 1)."""

from collections.abc import Callable
from typing import Literal

from torch import nn

from senet.errors import UserError
from senet.models.network import Head, Network, check_stages
from senet.nn import BasicBlock, Bottleneck, SEConfig
from senet.nn.blocks import StrideOn, conv

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
StemPool = Literal["ceil", "pad"]


def max_pool(kind: StemPool) -> nn.MaxPool2d:
    """Return the 3x3 stride-2 pool of the stem.

    "ceil" is Caffe's, as in the authors' networks: no padding, ceil rounding. "pad" is torchvision's: pad 1.
    Both give 56 x 56 from 112 x 112, from windows that lie one pixel apart.
    """
    if kind not in ("ceil", "pad"):
        raise UserError(f'stem_pool is "{kind}"; it must be "ceil" (the authors) or "pad" (torchvision)')
    return nn.MaxPool2d(3, 2, ceil_mode=True) if kind == "ceil" else nn.MaxPool2d(3, 2, padding=1)


def min_size(stem_pool: StemPool) -> int:
    """Return the smallest image side: an unpadded 3x3 pool needs 2 pixels, hence an image of 3."""
    return 3 if stem_pool == "ceil" else 1


def stem(in_channels: int, pool: StemPool) -> nn.Sequential:
    """Return the 7x7 convolution with stride 2 and the pool: (B, in, H, W) -> (B, 64, H / 4, W / 4)."""
    return nn.Sequential(
        conv(in_channels, 64, 7, stride=2), nn.BatchNorm2d(64), nn.ReLU(inplace=True), max_pool(pool)
    )


def stages(
    depths: tuple[int, ...], in_channels: int, make: Callable[[int, int, int, int], tuple[nn.Module, int]]
) -> dict[int, nn.Module]:
    """Build stages 2, 3, ...; ``make(stage, in_channels, block, stride)`` returns a block and its width."""
    built: dict[int, nn.Module] = {}
    for stage, depth in enumerate(depths, start=2):
        blocks = nn.Sequential()
        for index in range(depth):
            stride = 2 if stage > 2 and index == 0 else 1
            block, in_channels = make(stage, in_channels, index, stride)
            blocks.append(block)
        built[stage] = blocks
    return built


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
    expansion = BasicBlock.expansion if basic else Bottleneck.expansion
    check_stages(se, {s: 64 * 2 ** (s - 2) * expansion for s in range(2, 6)}, f"ResNet-{depth}")

    def make(stage: int, channels: int, _: int, stride: int) -> tuple[nn.Module, int]:
        width = 64 * 2 ** (stage - 2)
        stage_se = se.in_stage(stage) if se else None
        if basic:
            return BasicBlock(channels, width, stride=stride, se=stage_se, branch_relu=branch_relu), width
        out = width * expansion
        return Bottleneck(channels, width, out, stride=stride, stride_on=stride_on, se=stage_se), out

    head = Head(512 * expansion, num_classes, dropout)
    layers = stem(in_channels, stem_pool)
    return Network(layers, stages(BLOCKS[depth], 64, make), head, min_size=min_size(stem_pool))
