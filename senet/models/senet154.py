"""SENet-154, the authors' ILSVRC 2017 network (paper, appendix), and the same trunk without SE."""

from torch import nn

from senet.models.network import Head, Network, check_stages
from senet.models.resnet import StemPool, max_pool, min_size, stages
from senet.nn import Bottleneck, SEConfig
from senet.nn.blocks import conv, projection

BLOCKS = (3, 8, 36, 3)
GROUPS = 64


def stem(in_channels: int, pool: StemPool) -> nn.Sequential:
    """Return three 3x3 convolutions (64, 64, 128), the first with stride 2, and the pool."""
    layers: list[nn.Module] = []
    for out, stride in ((64, 2), (64, 1), (128, 1)):
        layers += [conv(in_channels, out, 3, stride), nn.BatchNorm2d(out), nn.ReLU(inplace=True)]
        in_channels = out
    return nn.Sequential(*layers, max_pool(pool))


def senet154(
    *,
    se: SEConfig | None = None,
    num_classes: int = 1000,
    in_channels: int = 3,
    stem_pool: StemPool = "ceil",
    dropout: float = 0.2,
) -> Network:
    """Build SENet-154, or with ``se=None`` its trunk: ResNeXt-152 (64x4d) with four changes.

    The first 1x1 of a bottleneck has half the usual channels, the 7x7 of the stem is three 3x3, the
    projection of a stage that strides is 3x3, and dropout stands before the classifier. The stride is on the
    3x3.

    Args:
        se: SE configuration, or None for the plain twin.
        num_classes: outputs of the classifier.
        in_channels: channels of the image.
        stem_pool: "ceil" as the authors, "pad" as torchvision's ResNets.
        dropout: before the classifier.
    """
    check_stages(se, {s: 256 * 2 ** (s - 2) for s in range(2, 6)}, "SENet-154")

    def make(stage: int, channels: int, _: int, stride: int) -> tuple[nn.Module, int]:
        out = 256 * 2 ** (stage - 2)
        block = Bottleneck(
            channels,
            out,
            out,
            stride=stride,
            stride_on="3x3",
            groups=GROUPS,
            reduce_width=out // 2,
            shortcut=projection(channels, out, stride, kernel=3 if stride > 1 else 1),
            se=se.in_stage(stage) if se else None,
        )
        return block, out

    head = Head(2048, num_classes, dropout)
    layers = stem(in_channels, stem_pool)
    return Network(layers, stages(BLOCKS, 128, make), head, min_size=min_size(stem_pool))
