"""(SE-)VGG-16 with BN (Simonyan and Zisserman, arXiv 1409.1556; with SE, paper section 5.1)."""

import torch.nn.functional as F
from torch import Tensor, nn

from senet.models.network import Head, Network
from senet.nn import SEConfig, place
from senet.nn.blocks import ConvUnit
from senet.ranges import ShareBelowOne

PLAN = {1: (64, 64), 2: (128, 128), 3: (256,) * 3, 4: (512,) * 3, 5: (512,) * 3}
"""Channels of the 13 convolutions by stage."""


class ConvBlock(nn.Module):
    """3x3 convolution, BN, ReLU, then SE on the rectified map: (B, in, H, W) -> (B, out, H, W)."""

    def __init__(self, in_channels: int, out_channels: int, se: SEConfig | None) -> None:
        super().__init__()
        self.unit = ConvUnit(in_channels, out_channels, 3, bias=True)
        self.se = place(se, "standard", out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output."""
        return self.se(self.unit(x))


class VGGHead(Head):
    """Average pool to 7x7 and three FC layers (fc6, fc7, fc), ReLU and dropout after the first two."""

    def __init__(self, channels: int, num_classes: int, dropout: float) -> None:
        super().__init__(4096, num_classes, dropout)
        self.fc6 = nn.Linear(channels * 7 * 7, 4096)
        self.fc7 = nn.Linear(4096, 4096)

    def descriptor(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 4096)."""
        # The identity at 224 x 224, where the map is 7 x 7.
        x = F.adaptive_avg_pool2d(x, 7).flatten(1)
        for fc in (self.fc6, self.fc7):
            x = self.dropout(F.relu(fc(x), inplace=True))
        return x


def vgg16_bn(
    *, se: SEConfig | None = None, num_classes: int = 1000, in_channels: int = 3, dropout: ShareBelowOne = 0.5
) -> Network:
    """Build (SE-)VGG-16 with BN; the plain twin is torchvision's ``vgg16_bn``.

    Stages are the five groups of convolutions between max pools, numbered 1 to 5 (conv1_x to conv5_x); blocks
    are single convolutions, so that the SE block after conv3_2 is ``SE_3_2``. SE stands after the ReLU of
    each of the 13 convolutions, so that only the placement "standard" exists.

    Args:
        se: SE configuration, or None for the plain twin.
        num_classes: outputs of the classifier.
        in_channels: channels of the image.
        dropout: after fc6 and fc7.
    """
    stages: dict[int, nn.Module] = {}
    channels = in_channels
    for stage, widths in PLAN.items():
        stages[stage] = blocks = nn.Sequential()
        for index, width in enumerate(widths, start=1):
            block = ConvBlock(channels, width, se.in_stage(stage) if se else None)
            blocks.add_module(f"conv{index}", block)
            channels = width
        blocks.add_module("pool", nn.MaxPool2d(2))
    return Network(nn.Identity(), stages, VGGHead(channels, num_classes, dropout), min_size=32)
