"""(SE-)MobileNet 1.0 (Howard et al., arXiv 1704.04861; with SE, paper Table 3)."""

from torch import Tensor, nn

from senet.models.network import Head, Network, build_stages
from senet.nn import SEConfig, place
from senet.nn.blocks import ConvUnit
from senet.ranges import ShareBelowOne

WIDTHS = {1: 64, 2: 128, 3: 256, 4: 512, 5: 1024}
"""Output channels by stage."""


class SeparableBlock(nn.Module):
    """Depthwise 3x3 and pointwise 1x1 convolution, each with BN and ReLU, then SE.

    Shapes: (B, in, H, W) -> (B, out, H / stride, W / stride).
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, se: SEConfig | None) -> None:
        super().__init__()
        self.depthwise = ConvUnit(in_channels, in_channels, 3, stride, groups=in_channels)
        self.se_3x3 = place(se, "conv3x3", in_channels)
        self.pointwise = ConvUnit(in_channels, out_channels, 1)
        self.se = place(se, "standard", out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output."""
        return self.se(self.pointwise(self.se_3x3(self.depthwise(x))))


def mobilenet(
    *, se: SEConfig | None = None, num_classes: int = 1000, in_channels: int = 3, dropout: ShareBelowOne = 0.0
) -> Network:
    """Build (SE-)MobileNet 1.0 with 4.2M parameters, 4.7M with SE.

    Stage n is the blocks whose map has 1 / 2^n of the image's side (1, 2, 2, 6 and 2 blocks). The paper does
    not say where SE stands; after each pointwise convolution and its ReLU fits its 4.7M, after the depthwise
    one (placement "conv3x3") would give 4.6M. Blocks have no shortcut, so that no other placement exists.

    Args:
        se: SE configuration, or None for the plain twin.
        num_classes: outputs of the classifier.
        in_channels: channels of the image.
        dropout: before the classifier.
    """

    def make(stage: int, channels: int, stride: int) -> tuple[nn.Module, int]:
        out = WIDTHS[stage]
        return SeparableBlock(channels, out, stride, se.in_stage(stage) if se else None), out

    stages = build_stages((1, 2, 2, 6, 2), 32, make, first=1)
    return Network(ConvUnit(in_channels, 32, 3, 2), stages, Head(WIDTHS[5], num_classes, dropout))
