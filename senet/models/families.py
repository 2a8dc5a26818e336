"""The zoo as data: which builder makes which networks, with which options. Nothing here imports torch."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import get_args

from senet.errors import UserError, did_you_mean
from senet.nn.config import Placement

ALL: tuple[Placement, ...] = get_args(Placement)
NO_BOTTLENECK: tuple[Placement, ...] = ("standard", "pre", "post", "identity")
STARTING: dict[str, object] = {"weights": None, "new_classifier": False, "freeze": None, "drop_path": 0.0}
"""The keys of ``model`` that every family has and ``build_network`` reads, with their defaults."""
RESNET_OPTIONS = {"stride_on": "1x1", "stem_pool": "ceil", "branch_relu": False, "dropout": 0.0}


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
        package: of another library whose trunks these are; the builder is then in ``senet.integrations``.
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


FAMILIES: tuple[Family, ...] = (
    Family(
        "resnet:resnet",
        "ResNet-{depth}",
        _depths("resnet{}", 18, 34),
        RESNET_OPTIONS,
        placements=NO_BOTTLENECK,
    ),
    Family("resnet:resnet", "ResNet-{depth}", _depths("resnet{}", 50, 101, 152), RESNET_OPTIONS),
    Family(
        "resnet:resnext",
        "ResNeXt-{depth}",
        _depths("resnext{}_32x4d", 50, 101),
        {"stem_pool": "ceil", "dropout": 0.0},
    ),
    Family(
        "resnet:senet154",
        "SENet-154",
        {"senet154_plain": {}},
        {"stem_pool": "ceil", "dropout": 0.2},
        se_name="senet154",
    ),
    Family(
        "vgg:vgg16_bn",
        "VGG-16",
        {"vgg16_bn": {}},
        {"dropout": 0.5},
        placements=("standard",),
        why="which has no shortcut and no bottleneck",
    ),
    Family(
        "bn_inception:bn_inception",
        "BN-Inception",
        {"bn_inception": {}},
        {"dropout": 0.0},
        placements=("standard",),
        why="whose modules have no shortcut and no bottleneck",
    ),
    Family(
        "inception_v3:inception_v3",
        "Inception-v3",
        {"inception_v3": {}},
        {"dropout": 0.5},
        placements=("standard",),
        why="whose modules have no shortcut and no bottleneck",
    ),
    Family(
        "inception_resnet_v2:inception_resnet_v2",
        "Inception-ResNet-v2",
        {"inception_resnet_v2": {}},
        {"dropout": 0.2},
        placements=NO_BOTTLENECK,
        why="whose branches are not bottlenecks around one 3x3 convolution",
    ),
    Family(
        "mobilenet:mobilenet",
        "MobileNet",
        {"mobilenet": {}},
        {"dropout": 0.0},
        placements=("standard", "conv3x3"),
        why="whose blocks have no shortcut",
    ),
    Family("shufflenet:shufflenet", "ShuffleNet", {"shufflenet": {}}, {"dropout": 0.0}),
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
        why="whose units have two branches and so no one 3x3 convolution",
    ),
    Family(
        "shake_shake:shake_even29",
        "Shake-Even 29 2x4x64d",
        {"shake_even29_2x4x64d": {}},
        num_classes=100,
        placements=NO_BOTTLENECK,
        why="whose units have two branches and so no one 3x3 convolution",
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


def trunks() -> dict[str, Family]:
    """Return the family of every trunk of the zoo, by the name of the plain twin."""
    return {name: family for family in FAMILIES for name in family.names}


def _foreign() -> dict[str, Family]:
    return {name: family for family in FOREIGN for name in family.names}


def _plain_twins() -> dict[str, str]:
    return {family.se_twin(trunk): trunk for trunk, family in (trunks() | _foreign()).items()}


def model_names() -> list[str]:
    """Return the names of the zoo, each trunk followed by its SE twin."""
    return [name for trunk, family in trunks().items() for name in (trunk, family.se_twin(trunk))]


def foreign_names() -> list[str]:
    """Return the names under which ``create_model`` takes other libraries' trunks, plain and with SE."""
    return [name for trunk, family in _foreign().items() for name in (trunk, family.se_twin(trunk))]


def is_se(name: str) -> bool:
    """Whether ``name`` builds a network with SE blocks."""
    return name in _plain_twins()


def plain_twin(name: str) -> str:
    """Return the name of the same trunk without SE; the paper's ``senet154`` has ``senet154_plain``."""
    return _plain_twins().get(name, name)


def se_twin(name: str) -> str:
    """Return the name of the trunk ``name`` with SE: ``se_resnet50``, but ``senet154`` for its own trunk."""
    family = (trunks() | _foreign()).get(name)
    return family.se_twin(name) if family else f"se_{name}"


def find_family(name: str) -> Family:
    """Return the family of ``name``, a network with or without SE.

    Raises:
        UserError: for an unknown name.
    """
    family = (trunks() | _foreign()).get(plain_twin(name))
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
