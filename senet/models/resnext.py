"""(SE-)ResNeXt for ImageNet (Xie et al., arXiv 1611.05431; with SE, paper Table 1)."""

from torch import nn

from senet.models.network import Head, Network, check_stages
from senet.models.resnet import BLOCKS, StemPool, min_size, stages, stem
from senet.nn import Bottleneck, SEConfig

GROUPS, BASE_WIDTH = 32, 4


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

    Args:
        depth: 50 or 101.
        se: SE configuration, or None for the plain twin.
        num_classes: outputs of the classifier.
        in_channels: channels of the image.
        stem_pool: "ceil" as the authors, "pad" as torchvision.
        dropout: before the classifier.
    """
    check_stages(se, {s: 256 * 2 ** (s - 2) for s in range(2, 6)}, f"ResNeXt-{depth}")

    def make(stage: int, channels: int, _: int, stride: int) -> tuple[nn.Module, int]:
        width = GROUPS * BASE_WIDTH * 2 ** (stage - 2)
        out = 256 * 2 ** (stage - 2)
        block = Bottleneck(
            channels,
            width,
            out,
            stride=stride,
            stride_on="3x3",
            groups=GROUPS,
            se=se.in_stage(stage) if se else None,
        )
        return block, out

    head = Head(2048, num_classes, dropout)
    layers = stem(in_channels, stem_pool)
    return Network(layers, stages(BLOCKS[depth], 64, make), head, min_size=min_size(stem_pool))
