"""Convolution, BN and ReLU as one unit, the brick of the networks without residual blocks."""

from torch import nn


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
