"""Residual units with SE in any of the paper's places. Every unit ends in one module, the residual tail."""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from senet.errors import UserError
from senet.kernels import Kernels, check_kernels, reference
from senet.kernels.dispatch import residual_tail
from senet.nn.config import SEConfig
from senet.nn.se import SqueezeExcitation, place

StrideOn = Literal["1x1", "3x3"]


def conv(in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """Return a bias-free convolution with "same" padding for odd kernels."""
    return nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False)


def projection(in_channels: int, out_channels: int, stride: int, kernel: int = 1) -> nn.Module:
    """Return the shortcut: identity where shapes allow, else convolution and BN (He et al.'s option B)."""
    if in_channels == out_channels and stride == 1:
        return nn.Identity()
    return nn.Sequential(conv(in_channels, out_channels, kernel, stride), nn.BatchNorm2d(out_channels))


class ResidualTail(nn.Module):
    """The last step of a residual unit: BN -> SE -> + shortcut -> ReLU, one module so it can be one kernel.

    ``y = relu(s * BN(x) + shortcut)`` with the gate ``s`` of BN(x); without SE, s = 1. For SE-POST the block
    acts on y, for SE-Identity on the shortcut (Figure 5).

    With average squeeze and sigmoid gate, or without SE, ``senet.kernels`` may run it as one operator; every
    other variant is composed of eager operations.

    Args:
        channels: C of both inputs.
        se: the stage's SE configuration; only the placements standard, post and identity act here.
        branch_relu: one more ReLU after BN, as in Cadene's port of SE-ResNet-18/34 (timm's ``legacy_*``).

    Attributes:
        kernels: which implementation runs; see ``set_kernels``.
    """

    kernels: Kernels = "auto"

    def __init__(self, channels: int, se: SEConfig | None = None, branch_relu: bool = False) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels)
        self.placement = se.placement if se is not None else "standard"
        self.branch_relu = branch_relu
        if self.placement in ("standard", "post", "identity"):
            self.se = place(se, self.placement, channels)
        else:
            self.se = nn.Identity()

    def forward(self, x: Tensor, shortcut: Tensor) -> Tensor:
        """Merge the branch ``x`` and ``shortcut``, both (B, C, H, W)."""
        if self.placement == "identity":
            shortcut = self.se(shortcut)
        merged = self._merge(x, shortcut)
        return self.se(merged) if self.placement == "post" else merged

    def _merge(self, x: Tensor, shortcut: Tensor) -> Tensor:
        se = self.se if self.placement == "standard" and isinstance(self.se, SqueezeExcitation) else None
        if self.can_fuse:
            return residual_tail(x, shortcut, self.bn, se, self.kernels)
        return reference.residual_tail(x, shortcut, self._normalise, None if se is None else se.gate)

    @property
    def can_fuse(self) -> bool:
        """Whether this variant is the one that ``senet.kernels`` knows."""
        if self.branch_relu:
            return False
        if self.placement != "standard" or not isinstance(self.se, SqueezeExcitation):
            return True
        return self.se.config.squeeze == "avg" and self.se.config.gate == "sigmoid"

    def _normalise(self, x: Tensor) -> Tensor:
        u: Tensor = self.bn(x)
        return F.relu(u, inplace=True) if self.branch_relu else u


def set_kernels(model: nn.Module, kernels: Kernels) -> None:
    """Choose how every residual tail of ``model`` runs.

    Args:
        model: any module that contains residual tails.
        kernels: "auto", the default: fused where supported and faster. "eager": one operation after the
            other. "triton": fused, or an error.

    Raises:
        UserError: for another word, or for "triton" if the model has a tail that cannot be fused.
    """
    check_kernels(kernels)
    tails = {name: module for name, module in model.named_modules() if isinstance(module, ResidualTail)}
    unfusible = [name for name, tail in tails.items() if not tail.can_fuse]
    if kernels == "triton" and unfusible:
        raise UserError(
            f"kernels=triton, but {unfusible[0]} has no average squeeze with sigmoid gate: use kernels=auto"
        )
    for tail in tails.values():
        tail.kernels = kernels


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
        merged: Tensor = self.tail(self.conv2(x), shortcut)
        return merged


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
        merged: Tensor = self.tail(self.conv3(x), shortcut)
        return merged
