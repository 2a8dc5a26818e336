"""(SE-)ResNets for 32 x 32 images (paper Tables 4, 5).

He et al. 2015 section 4.2, *Identity Mappings* (arXiv 1603.05027), and wide ones (Zagoruyko and Komodakis,
arXiv 1605.07146).
"""

from typing import Literal, get_args

import torch.nn.functional as F
from torch import Tensor, nn

from senet.errors import UserError, did_you_mean
from senet.models.network import Head, Network, build_stages
from senet.nn import BasicBlock, SEConfig, merge, place
from senet.nn.blocks import conv

ZeroChannels = Literal["behind", "both"]
"""Where the channels of zeros go: behind the others, or half of them before and half behind."""


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


def _depth(depth: int, layers_per_block: int, name: str) -> tuple[int, int, int]:
    blocks, rest = divmod(depth - 2, 3 * layers_per_block)
    if rest or blocks < 1:
        raise UserError(f"{name} needs a depth of {3 * layers_per_block}n + 2, not {depth}")
    return blocks, blocks, blocks


def width(stage: int) -> int:
    """Return the channels of a stage, of 2 to 4."""
    return (16, 32, 64)[stage - 2]


def cifar_resnet(
    depth: int,
    *,
    se: SEConfig | None = None,
    num_classes: int = 10,
    in_channels: int = 3,
    zero_channels: ZeroChannels = "behind",
) -> Network:
    """Build CIFAR (SE-)ResNet of depth 6n + 2 with widths 16, 32, 64 and zero-padding shortcuts.

    Raises:
        UserError: for ``zero_channels`` other than "behind" and "both" (as in akamaster/pytorch_resnet_cifar10,
            whose published weights need it).
    """
    if zero_channels not in get_args(ZeroChannels):
        raise UserError(
            f'model.zero_channels="{zero_channels}"{did_you_mean(zero_channels, get_args(ZeroChannels))}'
        )

    def make(stage: int, channels: int, stride: int) -> tuple[nn.Module, int]:
        out, stage_se = width(stage), se.in_stage(stage) if se else None
        shortcut = ZeroPadShortcut(channels, out, stride, zero_channels) if channels != out else None
        return BasicBlock(channels, out, stride=stride, shortcut=shortcut, se=stage_se), out

    stem = nn.Sequential(conv(in_channels, 16, 3), nn.BatchNorm2d(16), nn.ReLU(inplace=True))
    stages = build_stages(_depth(depth, 2, "a CIFAR ResNet"), 16, make)
    return Network(stem, stages, Head(64, num_classes), input_size=32)


def preact_resnet(
    depth: int, *, se: SEConfig | None = None, num_classes: int = 10, in_channels: int = 3
) -> Network:
    """Build pre-activation (SE-)ResNet: basic blocks at depth 110, bottlenecks at 164 (Tables 4, 5)."""
    bottleneck = depth >= 164
    expansion = 4 if bottleneck else 1

    def make(stage: int, channels: int, stride: int) -> tuple[nn.Module, int]:
        inner, stage_se = width(stage), se.in_stage(stage) if se else None
        block = PreActivationBlock(channels, inner, stride=stride, bottleneck=bottleneck, se=stage_se)
        return block, inner * expansion

    stem = conv(in_channels, 16, 3)
    depths = _depth(depth, 3 if bottleneck else 2, "a pre-activation ResNet")
    stages = build_stages(depths, 16, make)
    last = 64 * expansion
    final = nn.Sequential(nn.BatchNorm2d(last), nn.ReLU(inplace=True))
    return Network(stem, stages, Head(last, num_classes), final, input_size=32)


def wrn16_8(*, se: SEConfig | None = None, num_classes: int = 10, in_channels: int = 3) -> Network:
    """Build (SE-)WRN-16-8: basic pre-activation units of 128, 256 and 512 channels, two to a stage."""
    widen, depths = 8, (2, 2, 2)

    def make(stage: int, channels: int, stride: int) -> tuple[nn.Module, int]:
        out, stage_se = widen * width(stage), se.in_stage(stage) if se else None
        return PreActivationBlock(channels, out, stride=stride, bottleneck=False, se=stage_se), out

    last = widen * 64
    final = nn.Sequential(nn.BatchNorm2d(last), nn.ReLU(inplace=True))
    head, stem = Head(last, num_classes), conv(in_channels, 16, 3)
    return Network(stem, build_stages(depths, 16, make), head, final, input_size=32)
