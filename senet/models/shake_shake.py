"""(SE-)Shake-Shake 26 2x96d and Shake-Even 29 2x4x64d (Gastaldi, arXiv 1705.07485; paper Tables 4, 5)."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from senet.models.network import Head, Network, build_stages
from senet.nn import SEConfig, merge, place
from senet.nn.blocks import conv, conv_bn, projection

Part = Callable[[int, int, int], nn.Module]
"""Makes a part of a unit of its input's channels, its output's, and its stride."""


class _Mix(torch.autograd.Function):
    """``alpha a + (1 - alpha) b`` whose gradients are scaled by ``beta`` and ``1 - beta``."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
        ctx.save_for_backward(beta)
        return torch.lerp(b, a, alpha)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        (beta,) = ctx.saved_tensors
        return beta * grads[0], (1 - beta) * grads[0], None, None


class Shake(nn.Module):
    """Mix two branches with random weights drawn for every image ("Image" level): (B, C, H, W) x 2 -> same.

    In training ``alpha a + (1 - alpha) b`` with alpha uniform in [0, 1]; in evaluation the mean. The backward
    pass uses an independent beta ("Shake") or 0.5 ("Even"). Both come from torch's global generator, drawn in
    the forward pass, so that a seed fixes them whatever order the gradients are computed in.
    """

    def __init__(self, backward: str) -> None:
        super().__init__()
        assert backward in ("shake", "even")
        self.backward = backward

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the mixture."""
        if not self.training:
            return (a + b) * 0.5
        shape = (a.shape[0], 1, 1, 1)
        alpha = torch.rand(shape, device=a.device, dtype=a.dtype)
        beta = torch.rand_like(alpha) if self.backward == "shake" else torch.full_like(alpha, 0.5)
        return _Mix.apply(a, b, alpha, beta)

    def extra_repr(self) -> str:
        """Name the backward rule in ``repr``."""
        return f"forward=shake, backward={self.backward}"


class TwoPathShortcut(nn.Module):
    """ReLU, then two 1x1 convolutions of half the channels each, the second on the map moved by one pixel.

    The shift, right and down with zeros entering, lets the second path see pixels that the stride of the
    first skips. Shapes: (B, in, H, W) -> (B, out, H / stride, W / stride), rounded up.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv1 = conv(in_channels, out_channels // 2, 1)
        self.conv2 = conv(in_channels, out_channels // 2, 1)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return the shortcut's map."""
        x = F.relu(x)
        step = self.stride
        shifted = F.pad(x, (1, -1, 1, -1))
        halves = self.conv1(x[:, :, ::step, ::step]), self.conv2(shifted[:, :, ::step, ::step])
        return self.bn(torch.cat(halves, dim=1))


def two_path_shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """Return the shortcut of a pre-activated unit, where shapes allow the identity."""
    return (
        nn.Identity() if in_channels == out_channels else TwoPathShortcut(in_channels, out_channels, stride)
    )


def basic_branch(in_channels: int, width: int, stride: int) -> nn.Sequential:
    """Return ReLU, 3x3, BN, ReLU, 3x3, BN; the leading ReLU is not in place, as both branches share it."""
    return nn.Sequential(
        nn.ReLU(),
        *conv_bn(in_channels, width, 3, stride),
        nn.ReLU(inplace=True),
        *conv_bn(width, width, 3),
    )


def resnext_branch(in_channels: int, out: int, stride: int) -> nn.Sequential:
    """Return ResNeXt's bottleneck of 4 x 64d: 1x1, 3x3 with 4 groups and stride, 1x1, with BN each."""
    return nn.Sequential(
        *conv_bn(in_channels, out, 1),
        nn.ReLU(inplace=True),
        *conv_bn(out, out, 3, stride, groups=4),
        nn.ReLU(inplace=True),
        *conv_bn(out, out, 1),
    )


class ShakeUnit(nn.Module):
    """``shortcut(x) + SE(shake(branch1(x), branch2(x)))``, then ReLU if ``relu``.

    The two branches are one residual branch as far as SE is concerned: one block gates their mixture.
    """

    def __init__(
        self,
        branches: tuple[nn.Module, nn.Module],
        shortcut: nn.Module,
        channels: tuple[int, int],
        backward: str,
        relu: bool,
        se: SEConfig | None,
    ) -> None:
        super().__init__()
        in_channels, out = channels
        self.se_pre = place(se, "pre", in_channels)
        self.branch1, self.branch2 = branches
        self.shake = Shake(backward)
        self.shortcut = shortcut
        self.relu = relu
        self.se_standard = place(se, "standard", out)
        self.se_identity = place(se, "identity", out)
        self.se_post = place(se, "post", out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, H / stride, W / stride)."""
        entered = self.se_pre(x)
        branch = self.shake(self.branch1(entered), self.branch2(entered))
        merged = merge(self.se_standard, branch, self.se_identity(self.shortcut(x)))
        return self.se_post(F.relu(merged, inplace=True) if self.relu else merged)


def _stages(
    units: int, in_channels: int, width: int, branch: Part, shortcut: Part, backward: str, se: SEConfig | None
) -> dict[int, nn.Module]:
    """Return stages 2, 3, 4 of ``units`` units with ``width``, 2 and 4 times as many channels.

    Those whose ``backward`` is "even" end in a ReLU.
    """

    def make(stage: int, channels: int, stride: int) -> tuple[nn.Module, int]:
        out, stage_se = width << (stage - 2), se.in_stage(stage) if se else None
        branches = branch(channels, out, stride), branch(channels, out, stride)
        passed = shortcut(channels, out, stride)
        return ShakeUnit(branches, passed, (channels, out), backward, backward == "even", stage_se), out

    return build_stages((units,) * 3, in_channels, make)


def shake_shake26(*, se: SEConfig | None = None, num_classes: int = 10, in_channels: int = 3) -> Network:
    """Build (SE-)Shake-Shake 26 2x96d ("Shake-Shake-Image"): basic branches of 96, 192 and 384 channels.

    Units are pre-activated: BN ends a branch, ReLU begins the next and stands before the pool.

    Args:
        se: SE configuration, or None for the plain twin.
        num_classes: outputs of the classifier.
        in_channels: channels of the image.
    """
    stem = nn.Sequential(*conv_bn(in_channels, 16, 3))
    head = Head(384, num_classes)
    stages = _stages(4, 16, 96, basic_branch, two_path_shortcut, "shake", se)
    return Network(stem, stages, head, nn.ReLU(), input_size=32)


def shake_even29(*, se: SEConfig | None = None, num_classes: int = 100, in_channels: int = 3) -> Network:
    """Build (SE-)Shake-Even 29 2x4x64d ("Shake-Even-Image"): two ResNeXt bottlenecks of 4 groups x 64d.

    As in the authors' CIFAR-100 network the units are ResNeXt's: ReLU after the addition, 1x1 projections.

    Args:
        se: SE configuration, or None for the plain twin.
        num_classes: outputs of the classifier.
        in_channels: channels of the image.
    """
    stem = nn.Sequential(*conv_bn(in_channels, 64, 3), nn.ReLU(inplace=True))
    head = Head(1024, num_classes)
    return Network(stem, _stages(3, 64, 256, resnext_branch, projection, "even", se), head, input_size=32)
