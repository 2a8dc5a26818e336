"""What networks are built of: convolutions, and residual units with SE in any of the paper's places.

Every residual unit ends in one module, the residual tail.
"""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from senet.errors import UserError
from senet.nn.config import SEConfig
from senet.nn.se import place
from senet.nn.tail import ResidualTail

StrideOn = Literal["1x1", "3x3"]


def conv(in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """Return a bias-free convolution with "same" padding for odd kernels."""
    return nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False)


def conv_bn(
    in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1
) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    """Return such a convolution and the BN behind it."""
    return conv(in_channels, out_channels, kernel, stride, groups), nn.BatchNorm2d(out_channels)


def projection(in_channels: int, out_channels: int, stride: int, kernel: int = 1) -> nn.Module:
    """Return the shortcut: identity where shapes allow, else convolution and BN (He et al.'s option B)."""
    if in_channels == out_channels and stride == 1:
        return nn.Identity()
    return nn.Sequential(*conv_bn(in_channels, out_channels, kernel, stride))


class ConvUnit(nn.Sequential):
    """``relu(BN(conv(x)))`` with "same" padding for odd kernels: (B, in, H, W) -> (B, out, H / s, W / s).

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel: side of the kernel, odd.
        stride: s.
        groups: of the convolution; ``in_channels`` makes it depthwise.
        bias: of the convolution (VGG only: BN makes it idle).
        relu: False leaves the ReLU out.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: int = 1,
        *,
        groups: int = 1,
        bias: bool = False,
        relu: bool = True,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=bias
        )
        self.bn = nn.BatchNorm2d(out_channels)
        if relu:
            self.relu = nn.ReLU(inplace=True)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions (ResNet-18/34): (B, in, H, W) -> (B, out, H / stride, W / stride)."""

    expansion = 1

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int = 1,
        shortcut: nn.Module | None = None,
        se: SEConfig | None = None,
        branch_relu: bool = False,
    ) -> None:
        super().__init__()
        if se is not None and se.placement == "conv3x3":
            raise UserError(
                "se.placement=conv3x3 (SE_3x3, Table 15) stands after the 3x3 convolution of a bottleneck; "
                "this network has basic blocks: use a bottleneck network such as se_resnet50"
            )
        self.se_pre = place(se, "pre", in_channels)
        self.conv1 = conv(in_channels, out_channels, 3, stride)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = conv(out_channels, out_channels, 3)
        self.shortcut = shortcut if shortcut is not None else projection(in_channels, out_channels, stride)
        self.tail = ResidualTail(out_channels, se, branch_relu)

    def forward(self, x: Tensor) -> Tensor:
        """Return the unit's output."""
        shortcut = self.shortcut(x)
        x = F.relu(self.bn1(self.conv1(self.se_pre(x))), inplace=True)
        return self.tail(self.conv2(x), shortcut)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions (ResNet-50 and deeper, ResNeXt, SENet-154).

    Shapes: (B, in, H, W) -> (B, out, H / stride, W / stride).

    Args:
        in_channels: channels of the input.
        width: channels of the 3x3 convolution.
        out_channels: channels of the output, 4 x 64 x 2^k in the ResNets.
        stride: of the unit.
        stride_on: the convolution that strides: "1x1" in the authors' SE-ResNets (and the original ResNet),
            "3x3" in torchvision's ResNets, in ResNeXt and in SENet-154.
        groups: of the 3x3 convolution.
        reduce_width: channels of the first 1x1 if not ``width`` (SENet-154 halves it).
        shortcut: the shortcut if not identity or a 1x1 projection.
        se: the stage's SE configuration, or None.
    """

    expansion = 4

    def __init__(
        self,
        in_channels: int,
        width: int,
        out_channels: int,
        *,
        stride: int = 1,
        stride_on: StrideOn = "1x1",
        groups: int = 1,
        reduce_width: int | None = None,
        shortcut: nn.Module | None = None,
        se: SEConfig | None = None,
    ) -> None:
        super().__init__()
        first = reduce_width or width
        stride1, stride2 = (stride, 1) if stride_on == "1x1" else (1, stride)
        self.se_pre = place(se, "pre", in_channels)
        self.conv1 = conv(in_channels, first, 1, stride1)
        self.bn1 = nn.BatchNorm2d(first)
        self.conv2 = conv(first, width, 3, stride2, groups)
        self.bn2 = nn.BatchNorm2d(width)
        self.se_3x3 = place(se, "conv3x3", width)
        self.conv3 = conv(width, out_channels, 1)
        self.shortcut = shortcut if shortcut is not None else projection(in_channels, out_channels, stride)
        self.tail = ResidualTail(out_channels, se)

    def forward(self, x: Tensor) -> Tensor:
        """Return the unit's output."""
        shortcut = self.shortcut(x)
        x = F.relu(self.bn1(self.conv1(self.se_pre(x))), inplace=True)
        x = self.se_3x3(F.relu(self.bn2(self.conv2(x)), inplace=True))
        return self.tail(self.conv3(x), shortcut)
