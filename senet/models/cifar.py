"""(SE-)ResNets for 32 x 32 images: He et al. 2015 section 4.2, and *Identity Mappings* (arXiv 1603.05027)."""

import torch.nn.functional as F
from torch import Tensor, nn

from senet.errors import UserError
from senet.models.network import Head, Network, check_stages
from senet.models.resnet import stages
from senet.nn import BasicBlock, SEConfig, place
from senet.nn.blocks import conv


class ZeroPadShortcut(nn.Module):
    """Parameter-free shortcut: subsample and append zero channels (He et al.'s option A)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.extra = out_channels - in_channels
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, H / stride, W / stride)."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.extra))


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
        merged: Tensor = self.se_post(self.se_standard(branch) + self.se_identity(shortcut))
        return merged


def _depth(depth: int, layers_per_block: int, name: str) -> tuple[int, int, int]:
    blocks, rest = divmod(depth - 2, 3 * layers_per_block)
    if rest or blocks < 1:
        raise UserError(f"{name} needs a depth of {3 * layers_per_block}n + 2, not {depth}")
    return blocks, blocks, blocks


def cifar_resnet(
    depth: int, *, se: SEConfig | None = None, num_classes: int = 10, in_channels: int = 3
) -> Network:
    """Build CIFAR (SE-)ResNet of depth 6n + 2 with widths 16, 32, 64 and zero-padding shortcuts."""
    check_stages(se, {2: 16, 3: 32, 4: 64}, f"CIFAR ResNet-{depth}")

    def make(stage: int, channels: int, _: int, stride: int) -> tuple[nn.Module, int]:
        width = 16 * 2 ** (stage - 2)
        shortcut = ZeroPadShortcut(channels, width, stride) if channels != width else None
        block = BasicBlock(
            channels, width, stride=stride, shortcut=shortcut, se=se.in_stage(stage) if se else None
        )
        return block, width

    stem = nn.Sequential(conv(in_channels, 16, 3), nn.BatchNorm2d(16), nn.ReLU(inplace=True))
    depths = _depth(depth, 2, "a CIFAR ResNet")
    return Network(stem, stages(depths, 16, make), Head(64, num_classes), input_size=32)


def preact_resnet(
    depth: int, *, se: SEConfig | None = None, num_classes: int = 10, in_channels: int = 3
) -> Network:
    """Build pre-activation (SE-)ResNet: basic blocks at depth 110, bottlenecks at 164 (Tables 4, 5)."""
    bottleneck = depth >= 164
    expansion = 4 if bottleneck else 1
    check_stages(se, {s: 16 * 2 ** (s - 2) * expansion for s in (2, 3, 4)}, f"pre-activation ResNet-{depth}")

    def make(stage: int, channels: int, _: int, stride: int) -> tuple[nn.Module, int]:
        width = 16 * 2 ** (stage - 2)
        stage_se = se.in_stage(stage) if se else None
        block = PreActivationBlock(channels, width, stride=stride, bottleneck=bottleneck, se=stage_se)
        return block, width * expansion

    depths = _depth(depth, 3 if bottleneck else 2, "a pre-activation ResNet")
    last = 64 * expansion
    final = nn.Sequential(nn.BatchNorm2d(last), nn.ReLU(inplace=True))
    stem = conv(in_channels, 16, 3)
    return Network(stem, stages(depths, 16, make), Head(last, num_classes), final, input_size=32)
