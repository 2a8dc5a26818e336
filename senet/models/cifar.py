"""(SE-)ResNets for 32 x 32 images (paper Tables 4, 5).

He et al. 2015 section 4.2, *Identity Mappings* (arXiv 1603.05027), and wide ones (Zagoruyko and Komodakis,
arXiv 1605.07146).
"""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from senet.errors import UserError
from senet.models.network import Head, Network, build_stages
from senet.nn import BasicBlock, SEConfig, merge, place
from senet.nn.blocks import conv, conv_bn

ZeroChannels = Literal["behind", "both"]
"""Where the channels of zeros go: behind the others, or half of them before and half behind."""
UNITS = {16: 2, 20: 3, 32: 5, 44: 7, 56: 9, 110: 18, 164: 18}
"""Units in each of the three stages by depth: of two convolutions, at depth 164 of three."""
WIDTHS = {2: 16, 3: 32, 4: 64}
"""Channels by stage."""


class ZeroPadShortcut(nn.Module):
    """Parameter-free shortcut: subsample and add zero channels (He et al.'s option A)."""

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, zeros: ZeroChannels = "behind"
    ) -> None:
        super().__init__()
        extra = out_channels - in_channels
        self.before = extra // 2 if zeros == "both" else 0
        self.extra = extra - self.before
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, H / stride, W / stride)."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.extra))


class PreActivationBlock(nn.Module):
    """BN-ReLU-convolution, twice (basic) or three times (bottleneck), then SE and the addition.

    The first unit of a stage that changes shape takes its shortcut after the first BN-ReLU, as the authors of
    the pre-activation networks do. There is no ReLU after the addition, so SE-POST acts on the sum itself.
    """

    def __init__(
        self, in_channels: int, width: int, *, stride: int, bottleneck: bool, se: SEConfig | None
    ) -> None:
        super().__init__()
        if se is not None and se.placement == "conv3x3" and not bottleneck:
            raise UserError(
                "se.placement=conv3x3 (SE_3x3, Table 15) stands after the 3x3 convolution of a bottleneck; "
                "this network has basic blocks: use a bottleneck network such as se_preact_resnet164"
            )
        out = width * 4 if bottleneck else width
        kernels = (1, 3, 1) if bottleneck else (3, 3)
        channels = (in_channels, *[width] * (len(kernels) - 1), out)
        strides = (1, stride, 1) if bottleneck else (stride, 1)
        self.se_pre = place(se, "pre", in_channels)
        self.bns = nn.ModuleList(nn.BatchNorm2d(c) for c in channels[:-1])
        self.convs = nn.ModuleList(
            conv(a, b, k, s) for a, b, k, s in zip(channels, channels[1:], kernels, strides, strict=False)
        )
        self.se_3x3 = place(se, "conv3x3", width)
        self.se_standard = place(se, "standard", out)
        self.se_post = place(se, "post", out)
        self.se_identity = place(se, "identity", out)
        self.changes_shape = in_channels != out or stride != 1
        self.shortcut: nn.Module = conv(in_channels, out, 1, stride) if self.changes_shape else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, H / stride, W / stride)."""
        first = F.relu(self.bns[0](x))
        shortcut = self.shortcut(first if self.changes_shape else x)
        branch = self.convs[0](self.se_pre(first))
        for bn, convolution in zip(list(self.bns)[1:], list(self.convs)[1:], strict=True):
            branch = convolution(F.relu(bn(branch), inplace=True))
            if convolution.kernel_size == (3, 3):
                branch = self.se_3x3(branch)
        return self.se_post(merge(self.se_standard, branch, self.se_identity(shortcut)))


def cifar_resnet(
    depth: int,
    *,
    se: SEConfig | None = None,
    num_classes: int = 10,
    in_channels: int = 3,
    zero_channels: ZeroChannels = "behind",
) -> Network:
    """Build CIFAR (SE-)ResNet of depth 6n + 2 with widths 16, 32, 64 and zero-padding shortcuts.

    With ``zero_channels`` "both" they are as in akamaster/pytorch_resnet_cifar10, whose published weights need it.
    """

    def make(stage: int, channels: int, stride: int) -> tuple[nn.Module, int]:
        out, stage_se = WIDTHS[stage], se.in_stage(stage) if se else None
        shortcut = ZeroPadShortcut(channels, out, stride, zero_channels) if channels != out else None
        return BasicBlock(channels, out, stride=stride, shortcut=shortcut, se=stage_se), out

    stem = nn.Sequential(*conv_bn(in_channels, 16, 3), nn.ReLU(inplace=True))
    stages = build_stages((UNITS[depth],) * 3, 16, make)
    return Network(stem, stages, Head(64, num_classes), input_size=32)


def _pre_activated(
    depth: int, se: SEConfig | None, *, widen: int = 1, bottleneck: bool = False
) -> tuple[dict[int, nn.Module], nn.Module]:
    """Return the stages of a pre-activation network, and the BN and ReLU that end it."""
    expansion = 4 if bottleneck else 1

    def make(stage: int, channels: int, stride: int) -> tuple[nn.Module, int]:
        width, stage_se = widen * WIDTHS[stage], se.in_stage(stage) if se else None
        block = PreActivationBlock(channels, width, stride=stride, bottleneck=bottleneck, se=stage_se)
        return block, width * expansion

    stages = build_stages((UNITS[depth],) * 3, 16, make)
    return stages, nn.Sequential(nn.BatchNorm2d(widen * 64 * expansion), nn.ReLU(inplace=True))


def preact_resnet(
    depth: int, *, se: SEConfig | None = None, num_classes: int = 10, in_channels: int = 3
) -> Network:
    """Build pre-activation (SE-)ResNet: basic blocks at depth 110, bottlenecks at 164 (Tables 4, 5)."""
    bottleneck = depth >= 164
    stem = conv(in_channels, 16, 3)
    stages, final = _pre_activated(depth, se, bottleneck=bottleneck)
    return Network(stem, stages, Head(256 if bottleneck else 64, num_classes), final, input_size=32)


def wrn16_8(*, se: SEConfig | None = None, num_classes: int = 10, in_channels: int = 3) -> Network:
    """Build (SE-)WRN-16-8: basic pre-activation units of 128, 256 and 512 channels, two to a stage."""
    head, stem = Head(512, num_classes), conv(in_channels, 16, 3)
    stages, final = _pre_activated(16, se, widen=8)
    return Network(stem, stages, head, final, input_size=32)
