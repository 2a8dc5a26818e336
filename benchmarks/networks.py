"""The networks that are compared, ours and the peers', by the trunk they share."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from senet import create_model
from senet.kernels import Kernels
from senet.nn import set_kernels

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


def ours(name: str, kernels: Kernels = "auto", **options: object) -> Contender:
    """Return one of our networks."""

    def build() -> nn.Module:
        network = create_model(name, **options)
        set_kernels(network, kernels)
        return network

    label = name if kernels == "auto" else f"{name} (kernels={kernels})"
    se = name.startswith("se") and not name.endswith("plain")
    return Contender("senet", label, se, build)


def of_timm(name: str) -> Contender:
    """Return one of timm's networks, randomly initialised."""

    def build() -> nn.Module:
        import timm

        return timm.create_model(name)

    return Contender("timm", name, "se" in name, build)


def of_torchvision(name: str) -> Contender:
    """Return one of torchvision's networks, randomly initialised."""

    def build() -> nn.Module:
        from torchvision.models import get_model

        return get_model(name)

    return Contender("torchvision", name, False, build)


_AS_TORCHVISION = {"stride_on": "3x3", "stem_pool": "pad"}

GROUPS: dict[str, tuple[Contender, ...]] = {
    "resnet50, stride on 3x3": (
        ours("se_resnet50", **_AS_TORCHVISION),
        ours("se_resnet50", "eager", **_AS_TORCHVISION),
        ours("resnet50", **_AS_TORCHVISION),
        of_timm("seresnet50"),
        of_torchvision("resnet50"),
    ),
    "resnet50, stride on 1x1": (ours("se_resnet50"), ours("resnet50"), of_timm("legacy_seresnet50")),
    "resnext50_32x4d": (
        ours("se_resnext50_32x4d"),
        ours("resnext50_32x4d"),
        of_timm("seresnext50_32x4d"),
        of_timm("legacy_seresnext50_32x4d"),
        of_torchvision("resnext50_32x4d"),
    ),
    "senet154": (ours("senet154"), ours("senet154_plain"), of_timm("legacy_senet154")),
    "bn_inception": (ours("se_bn_inception"), ours("bn_inception")),
}
"""Networks of one group have the same trunk and, but for SE, the same multiply-adds."""
