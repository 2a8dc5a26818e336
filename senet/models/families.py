"""The zoo as data: which builder makes which networks, with which options. Nothing here imports torch."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from senet.errors import UserError, did_you_mean
from senet.nn.config import Placement

ALL: tuple[Placement, ...] = get_args(Placement)
NO_BOTTLENECK: tuple[Placement, ...] = ("standard", "pre", "post", "identity")
STANDARD: tuple[Placement, ...] = ("standard",)
STARTING: dict[str, object] = {"weights": None, "new_classifier": False, "freeze": None, "drop_path": 0.0}
"""The keys of ``model`` that every family has and ``build_network`` reads, with their defaults."""
RESNET_OPTIONS = {"stride_on": "1x1", "stem_pool": "ceil", "branch_relu": False, "dropout": 0.0}
NO_SHORTCUT = "which has no shortcut and no bottleneck"
TWO_BRANCHES = "whose units have two branches and so no one 3x3 convolution"


@dataclass(frozen=True)
class Family:
    """Trunks that one builder makes. Each has a twin with SE, from the same builder.

    Attributes:
        builder: "module:function" of ``senet.models``, called with the arguments of a name, the keywords
            ``se``, ``num_classes`` and ``in_channels``, and the options.
        title: what messages call a network; may have the arguments of its name in braces.
        names: the trunks, each with its arguments.
        options: the builder's further keywords, which a user may set, with their defaults.
        num_classes: outputs of the classifier where the user does not say.
        placements: those of ``se.placement`` that mean something in these trunks.
        why: what they lack for the others; empty where their blocks say so themselves.
        se_name: the SE twin of an only trunk, if it is not ``se_`` and the trunk's name.
        package: of another library that the trunks are from; the builder is then in ``senet.integrations``.
    """

    builder: str
    title: str
    names: Mapping[str, Mapping[str, object]]
    options: Mapping[str, object] = field(default_factory=dict)
    num_classes: int = 1000
    placements: tuple[Placement, ...] = ALL
    why: str = ""
    se_name: str | None = None
    package: str | None = None

    def se_twin(self, trunk: str) -> str:
        """Return the name of ``trunk`` with SE."""
        return self.se_name or f"se_{trunk}"


def _depths(pattern: str, *depths: int) -> dict[str, dict[str, object]]:
    return {pattern.format(depth): {"depth": depth} for depth in depths}


def _only(name: str, title: str, dropout: float, **others: Any) -> Family:
    """Return the family of the only trunk of a module, which like its builder is called ``name``."""
    return Family(f"{name}:{name}", title, {name: {}}, {"dropout": dropout}, **others)


_RESNEXTS = {
    f"resnext{depth}_32x4d": {"depth": depth, "groups": 32, "stride_on": "3x3"} for depth in (50, 101)
}
_SENET = {"senet154_plain": {"depth": 152, "groups": 64, "senet": True, "stride_on": "3x3"}}

FAMILIES: tuple[Family, ...] = (
    Family(
        "resnet:resnet",
        "ResNet-{depth}",
        _depths("resnet{}", 18, 34),
        RESNET_OPTIONS,
        placements=NO_BOTTLENECK,
    ),
    Family("resnet:resnet", "ResNet-{depth}", _depths("resnet{}", 50, 101, 152), RESNET_OPTIONS),
    Family("resnet:resnet", "ResNeXt-{depth}", _RESNEXTS, {"stem_pool": "ceil", "dropout": 0.0}),
    Family("resnet:resnet", "SENet-154", _SENET, {"stem_pool": "ceil", "dropout": 0.2}, se_name="senet154"),
    Family(
        "vgg:vgg16_bn", "VGG-16", {"vgg16_bn": {}}, {"dropout": 0.5}, placements=STANDARD, why=NO_SHORTCUT
    ),
    _only("bn_inception", "BN-Inception", 0.0, placements=STANDARD, why=NO_SHORTCUT),
    _only("inception_v3", "Inception-v3", 0.5, placements=STANDARD, why=NO_SHORTCUT, package="torchvision"),
    _only(
        "inception_resnet_v2",
        "Inception-ResNet-v2",
        0.2,
        placements=NO_BOTTLENECK,
        why="whose branches are not bottlenecks around one 3x3 convolution",
        package="timm",
    ),
    _only(
        "mobilenet",
        "MobileNet",
        0.0,
        placements=("standard", "conv3x3"),
        why="whose blocks have no shortcut",
    ),
    _only("shufflenet", "ShuffleNet", 0.0),
    Family(
        "cifar:cifar_resnet",
        "CIFAR ResNet-{depth}",
        _depths("resnet{}", 20, 32, 44, 56, 110),
        {"zero_channels": "behind"},
        num_classes=10,
        placements=NO_BOTTLENECK,
    ),
    Family(
        "cifar:preact_resnet",
        "pre-activation ResNet-{depth}",
        _depths("preact_resnet{}", 110),
        num_classes=10,
        placements=NO_BOTTLENECK,
    ),
    Family(
        "cifar:preact_resnet",
        "pre-activation ResNet-{depth}",
        _depths("preact_resnet{}", 164),
        num_classes=10,
    ),
    Family("cifar:wrn16_8", "WRN-16-8", {"wrn16_8": {}}, num_classes=10, placements=NO_BOTTLENECK),
    Family(
        "shake_shake:shake_shake26",
        "Shake-Shake 26 2x96d",
        {"shake_shake26_2x96d": {}},
        num_classes=10,
        placements=NO_BOTTLENECK,
        why=TWO_BRANCHES,
    ),
    Family(
        "shake_shake:shake_even29",
        "Shake-Even 29 2x4x64d",
        {"shake_even29_2x4x64d": {}},
        num_classes=100,
        placements=NO_BOTTLENECK,
        why=TWO_BRANCHES,
    ),
)

FOREIGN: tuple[Family, ...] = (
    Family(
        "timm_trunk:timm_trunk",
        "timm's network",
        {"timm": {}},
        {"timm_name": None, "pretrained": False, "dropout": 0.0},
        package="timm",
    ),
)
"""Trunks of other libraries, which one is an option; ``se_timm`` attaches SE to it."""


def _by_name(*families: Family) -> dict[str, Family]:
    return {name: family for family in families for name in family.names}


def trunks() -> dict[str, Family]:
    """Return the family of every trunk of the zoo, by the name of the plain twin."""
    return _by_name(*FAMILIES)


def _twins(*families: Family) -> dict[str, str]:
    """Return the names of trunks with SE by those without."""
    return {trunk: family.se_twin(trunk) for trunk, family in _by_name(*families).items()}


def model_names() -> list[str]:
    """Return the names of the zoo, each trunk followed by its SE twin."""
    return [name for twins in _twins(*FAMILIES).items() for name in twins]


def foreign_names() -> list[str]:
    """Return the names under which ``create_model`` takes other libraries' trunks, plain and with SE."""
    return [name for twins in _twins(*FOREIGN).items() for name in twins]


def is_se(name: str) -> bool:
    """Whether ``name`` builds a network with SE blocks."""
    return name in _twins(*FAMILIES, *FOREIGN).values()


def plain_twin(name: str) -> str:
    """Return the name of the same trunk without SE; the paper's ``senet154`` has ``senet154_plain``."""
    return next((plain for plain, with_se in _twins(*FAMILIES, *FOREIGN).items() if with_se == name), name)


def se_twin(name: str) -> str:
    """Return the name of the trunk ``name`` with SE: ``se_resnet50``, but ``senet154`` for its own trunk."""
    return _twins(*FAMILIES, *FOREIGN).get(name, f"se_{name}")


def find_family(name: str) -> Family:
    """Return the family of ``name``, a network with or without SE.

    Raises:
        UserError: for an unknown name.
    """
    family = _by_name(*FAMILIES, *FOREIGN).get(plain_twin(name))
    if family is None:
        names = model_names() + foreign_names()
        raise UserError(f'there is no model "{name}"{did_you_mean(name, names)}')
    return family


def model_options(name: str) -> dict[str, object]:
    """Return the options of a network's family with their defaults, e.g. ``stride_on`` of the ResNets."""
    return dict(find_family(name).options)


def check_options(name: str, options: Iterable[str]) -> None:
    """Refuse options that the network's family lacks, with the nearest one that it has.

    Raises:
        UserError: naming the option, or an unknown network.
    """
    family = find_family(name)
    for option in options:
        if option not in family.options:
            hint = did_you_mean(option, family.options) if family.options else "; this family has none"
            others = next((n for n, other in trunks().items() if option in other.options), None)
            more = f" ({others} has it)" if others else ""
            raise UserError(f'{name} has no option "{option}"{more}{hint}')
