"""The networks that are compared, ours and the peers', by the trunk they share."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

Build = Callable[[], nn.Module]


@dataclass(frozen=True)
class Contender:
    """A network, whose it is, and whether it has SE."""

    owner: str
    name: str
    se: bool
    build: Build

    @property
    def label(self) -> str:
        """Owner and name."""
        return f"{self.owner} {self.name}"


def ours(name: str, **options: object) -> Contender:
    """Return one of our networks."""

    def build() -> nn.Module:
        from senet import create_model

        return create_model(name, **options)

    return Contender("senet", name, name.startswith("se") and not name.endswith("plain"), build)


def timm(name: str) -> Contender:
    """Return one of timm's networks, randomly initialised."""

    def build() -> nn.Module:
        from timm import create_model

        return create_model(name)

    return Contender("timm", name, "se" in name, build)


def torchvision(name: str) -> Contender:
    """Return one of torchvision's networks, randomly initialised."""

    def build() -> nn.Module:
        from torchvision.models import get_model

        return get_model(name)

    return Contender("torchvision", name, False, build)


_AS_TORCHVISION = {"stride_on": "3x3", "stem_pool": "pad"}

GROUPS: dict[str, tuple[Contender, ...]] = {
    "resnet50, stride on 3x3": (
        ours("se_resnet50", **_AS_TORCHVISION),
        ours("resnet50", **_AS_TORCHVISION),
        timm("seresnet50"),
        torchvision("resnet50"),
    ),
    "resnet50, stride on 1x1": (ours("se_resnet50"), ours("resnet50"), timm("legacy_seresnet50")),
    "resnext50_32x4d": (
        ours("se_resnext50_32x4d"),
        ours("resnext50_32x4d"),
        timm("seresnext50_32x4d"),
        timm("legacy_seresnext50_32x4d"),
        torchvision("resnext50_32x4d"),
    ),
    "senet154": (ours("senet154"), ours("senet154_plain"), timm("legacy_senet154")),
    "bn_inception": (ours("se_bn_inception"), ours("bn_inception")),
}
"""Networks of one group have the same trunk and, but for SE, the same multiply-adds."""
