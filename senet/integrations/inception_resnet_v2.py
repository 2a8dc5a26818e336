"""(SE-)Inception-ResNet-v2 on timm's trunk (Szegedy et al., arXiv 1602.07261)."""

from collections import OrderedDict

import torch
import torch.nn.functional as F
from timm.models.inception_resnet_v2 import InceptionResnetV2
from torch import Tensor, nn

from senet.integrations import timm_norms  # noqa: F401 (its norms can be synchronised)
from senet.models.network import Head, Network
from senet.nn import SEConfig, place
from senet.nn.attention import HighwayGate
from senet.ranges import ShareBelowOne

STEM = ("conv2d_1a", "conv2d_2a", "conv2d_2b", "maxpool_3a", "conv2d_3b", "conv2d_4a", "maxpool_5a")
STAGES = {
    3: ("mixed_5b", "repeat", 320),
    4: ("mixed_6a", "repeat_1", 1088),
    5: ("mixed_7a", "repeat_2", 2080),
}
"""timm's module without shortcut, its residual units, and their channels, by stage."""


class ResidualInception(nn.Module):
    """``relu(x + scale * SE(conv(concat(branches(x)))))``: (B, C, H, W) -> (B, C, H, W).

    SE acts on the residual branch before its scaling by the constant (0.17, 0.1 or 0.2), which the paper
    leaves open; the gate would otherwise squeeze a map that much smaller.

    Args:
        unit: one of timm's residual units, whose branches and last convolution are taken over.
        scale: the constant.
        channels: C.
        se: the stage's SE configuration.
        relu: False in the last unit of the network, which has none.
    """

    def __init__(
        self, unit: nn.Module, scale: float, channels: int, se: SEConfig | None, relu: bool = True
    ) -> None:
        super().__init__()
        self.se_pre = place(se, "pre", channels)
        self.branches = nn.ModuleList(
            child for name, child in unit.named_children() if name.startswith("branch")
        )
        self.conv: nn.Module = unit.get_submodule("conv2d")
        self.scale = scale
        self.relu = relu
        self.se_standard = place(se, "standard", channels)
        self.se_identity = place(se, "identity", channels)
        self.se_post = place(se, "post", channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return the unit's output."""
        entered = self.se_pre(x)
        branch = self.conv(torch.cat([branch(entered) for branch in self.branches], dim=1))
        if isinstance(self.se_standard, HighwayGate):
            merged = self.se_standard(self.scale * branch, x)
        else:
            merged = self.se_identity(x) + self.scale * self.se_standard(branch)
        return self.se_post(F.relu(merged) if self.relu else merged)

    def extra_repr(self) -> str:
        """Name the scale and the ReLU in ``repr``."""
        return f"scale={self.scale}, relu={self.relu}"


def inception_resnet_v2(
    *, se: SEConfig | None = None, num_classes: int = 1000, in_channels: int = 3, dropout: ShareBelowOne = 0.2
) -> Network:
    """Build (SE-)Inception-ResNet-v2 for 299 x 299 images.

    Stages 3, 4, 5 are the maps of 35, 17 and 8 pixels (10, 20 and 10 residual units). Block 1 of each is the
    module without shortcut that leads to it (``Mixed_5b``, ``6a``, ``7a``) and has no SE; the residual units
    follow from block 2, so that ``SE_3_2`` is the first. timm's trunk is that of the TensorFlow authors, with
    13.16 G multiply-adds; the SE paper prints 11.75 G and does not define its own.

    Args:
        se: SE configuration, or None for the plain twin, timm's ``inception_resnet_v2``.
        num_classes: outputs of the classifier.
        in_channels: channels of the image.
        dropout: before the classifier.
    """
    trunk = InceptionResnetV2(num_classes=1, in_chans=in_channels)
    stem = nn.Sequential(OrderedDict((layer, getattr(trunk, layer)) for layer in STEM))
    stages: dict[int, nn.Module] = {}
    for stage, (mixed, repeat, channels) in STAGES.items():
        stage_se = se.in_stage(stage) if se else None
        units = list(getattr(trunk, repeat)) + ([trunk.block8] if stage == 5 else [])
        blocks = [
            ResidualInception(unit, unit.scale, channels, stage_se, relu=unit is not trunk.block8)
            for unit in units
        ]
        stages[stage] = nn.Sequential(getattr(trunk, mixed), *blocks)
    head = Head(1536, num_classes, dropout)
    return Network(stem, stages, head, trunk.conv2d_7b, input_size=299, min_size=75)
