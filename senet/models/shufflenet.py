"""(SE-)ShuffleNet 1x with three groups (Zhang et al., arXiv 1707.01083; with SE, paper Table 3)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from senet.models.network import Head, Network, build_stages
from senet.nn import SEConfig, merge, place
from senet.nn.attention import HighwayGate
from senet.nn.blocks import ConvUnit
from senet.ranges import ShareBelowOne

GROUPS = 3
WIDTHS = {2: 240, 3: 480, 4: 960}
"""Output channels by stage, as the ShuffleNet paper numbers them (Table 1)."""


class ShuffleUnit(nn.Module):
    """Grouped 1x1, channel shuffle, depthwise 3x3, grouped 1x1, SE, then merged with the shortcut.

    With stride 1 the shortcut is added; with stride 2 it is average-pooled and concatenated, and the branch
    supplies the channels it lacks, so that a highway gate has nothing to weigh there. ReLU follows in both cases.
    Shapes: (B, in, H, W) -> (B, out, H / stride, W / stride).
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, first_groups: int, se: SEConfig | None
    ) -> None:
        super().__init__()
        width = out_channels // 4
        branch = out_channels - in_channels if stride == 2 else out_channels
        self.stride = stride
        self.se_pre = place(se, "pre", in_channels)
        self.reduce = ConvUnit(in_channels, width, 1, groups=first_groups)
        self.shuffle = nn.ChannelShuffle(GROUPS)
        self.depthwise = ConvUnit(width, width, 3, stride, groups=width, relu=False)
        self.se_3x3 = place(se, "conv3x3", width)
        self.expand = ConvUnit(width, branch, 1, groups=GROUPS, relu=False)
        self.se_standard = place(se, "standard", branch)
        if stride == 2 and isinstance(self.se_standard, HighwayGate):
            self.se_standard = nn.Identity()
        self.se_identity = place(se, "identity", in_channels)
        self.se_post = place(se, "post", out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return the unit's output."""
        branch = self.shuffle(self.reduce(self.se_pre(x)))
        branch = self.expand(self.se_3x3(self.depthwise(branch)))
        if self.stride == 2:
            shortcut = self.se_identity(F.avg_pool2d(x, 3, 2, 1))
            merged = torch.cat([shortcut, self.se_standard(branch)], dim=1)
        else:
            merged = merge(self.se_standard, branch, self.se_identity(x))
        return self.se_post(F.relu(merged, inplace=True))


def shufflenet(
    *, se: SEConfig | None = None, num_classes: int = 1000, in_channels: int = 3, dropout: ShareBelowOne = 0.0
) -> Network:
    """Build (SE-)ShuffleNet 1x (g=3) with 1.87M parameters, 2.48M with SE.

    Stages 2, 3, 4 (4, 8 and 4 units) and bottlenecks of a quarter of a unit's output are the authors'. The
    SE paper does not say where SE stands; on the branch before the addition or concatenation fits its 2.4M.
    The branch of the first unit has 240 - 24 = 216 channels, whose excitation has 216 // 16 = 13.

    Args:
        se: SE configuration, or None for the plain twin.
        num_classes: outputs of the classifier.
        in_channels: channels of the image.
        dropout: before the classifier.
    """
    stem = nn.Sequential(ConvUnit(in_channels, 24, 3, 2), nn.MaxPool2d(3, 2, 1))

    def make(stage: int, channels: int, _: int) -> tuple[nn.Module, int]:
        out, stage_se = WIDTHS[stage], se.in_stage(stage) if se else None
        # The 24 channels of the stem are too few for a grouped convolution. Every stage strides, the first one too.
        first_groups, stride = 1 if channels == 24 else GROUPS, 1 if channels == out else 2
        return ShuffleUnit(channels, out, stride, first_groups, stage_se), out

    stages = build_stages((4, 8, 4), 24, make)
    return Network(stem, stages, Head(WIDTHS[4], num_classes, dropout))
