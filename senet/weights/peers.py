"""Which foreign network is which of ours, and how the two name their weights.

Every entry serves both directions: ``from_*`` reads a table of names from left to right, ``to_*`` from right
to left. Both demand every key and every shape of the network they name.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from senet.errors import UserError, did_you_mean
from senet.models import Network, create_model
from senet.nn import SEConfig
from senet.weights.keys import Rule, check_keys, rename, reverse

Source = Literal["timm", "torchvision"]


def _residual(stem: list[Rule], last_bn: int, se: str, fc: str) -> tuple[Rule, ...]:
    """Return the table of a ResNet: ``last_bn`` BNs per block (the last is our tail's), SE under ``se``."""
    rules = [*stem, (fc, "head.fc")]
    for stage in range(2, 6):
        theirs, ours = f"layer{stage - 1}.#", f"stages.{stage}.#"
        rules += [(f"{theirs}.conv{i}", f"{ours}.conv{i}") for i in range(1, last_bn + 1)]
        rules += [(f"{theirs}.bn{i}", f"{ours}.bn{i}") for i in range(1, last_bn)]
        rules += [(f"{theirs}.bn{last_bn}", f"{ours}.tail.bn")]
        rules += [(f"{theirs}.downsample.{i}", f"{ours}.shortcut.{i}") for i in (0, 1)]
        rules += [(f"{theirs}.{se}.fc{i}", f"{ours}.tail.se.excitation.fc{i}") for i in (1, 2)]
    return tuple(rules)


def _resnet(last_bn: int) -> tuple[Rule, ...]:
    return _residual([("conv1", "stem.0"), ("bn1", "stem.1")], last_bn, "se", "fc")


def _legacy(last_bn: int) -> tuple[Rule, ...]:
    stem = [("layer0.conv1", "stem.0"), ("layer0.bn1", "stem.1")]
    return _residual(stem, last_bn, "se_module", "last_linear")


@dataclass(frozen=True)
class Peer:
    """One of our networks in another library's version of it.

    Attributes:
        model: our name, as ``create_model`` takes it.
        rules: (their module, our module) for every module that has weights.
        options: the architecture options that the weights need.
        se: the SE configuration that the weights need; None for a plain network.
    """

    model: str
    rules: tuple[Rule, ...]
    options: Mapping[str, object] = field(default_factory=dict)
    se: SEConfig | None = None

    def build(self, num_classes: int = 1000, in_channels: int = 3) -> Network:
        """Return our network with the options that these weights need."""
        return create_model(
            self.model, se=self.se, num_classes=num_classes, in_channels=in_channels, **self.options
        )


_AS_TORCHVISION = {"stride_on": "3x3", "stem_pool": "pad"}
_BASIC_POOL = {"stem_pool": "pad"}

TORCHVISION: dict[str, Peer] = {
    **{f"resnet{depth}": Peer(f"resnet{depth}", _resnet(2), _BASIC_POOL) for depth in (18, 34)},
    **{f"resnet{depth}": Peer(f"resnet{depth}", _resnet(3), _AS_TORCHVISION) for depth in (50, 101, 152)},
}

TIMM: dict[str, Peer] = {
    **{name: peer for name, peer in TORCHVISION.items() if name.startswith("resnet")},
    **{
        f"se{name}": Peer(f"se_{name}", peer.rules, peer.options, SEConfig(round_to=8))
        for name, peer in TORCHVISION.items()
    },
    **{
        f"legacy_seresnet{depth}": Peer(f"se_resnet{depth}", _legacy(2), {"branch_relu": True}, SEConfig())
        for depth in (18, 34)
    },
    **{
        f"legacy_seresnet{depth}": Peer(f"se_resnet{depth}", _legacy(3), {"stride_on": "1x1"}, SEConfig())
        for depth in (50, 101, 152)
    },
}

_TABLES: dict[Source, dict[str, Peer]] = {"timm": TIMM, "torchvision": TORCHVISION}


def peer(source: Source, name: str) -> Peer:
    """Return the entry of ``name`` in ``source``.

    Raises:
        UserError: if there is no converter for it.
    """
    table = _TABLES[source]
    if name not in table:
        raise UserError(f'there is no converter for {source}\'s "{name}"{did_you_mean(name, table)}')
    return table[name]


def _expected(match: Peer, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the keys and shapes of our network, with the class and channel counts of ``state`` (ours)."""
    fc, stem = state.get("head.fc.weight"), state.get("stem.0.weight")
    with torch.device("meta"):
        network = match.build(1000 if fc is None else len(fc), 3 if stem is None else stem.shape[1])
    return network.state_dict()


def _convert_from(source: Source, state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    match = peer(source, name)
    ours = rename(state, match.rules, f"{source}'s {name}")
    check_keys(ours, _expected(match, ours), f"the weights of {source}'s {name}")
    return ours


def _convert_to(source: Source, state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    match = peer(source, name)
    check_keys(state, _expected(match, state), f"the weights to write as {source}'s {name}")
    return rename(state, reverse(match.rules), f"{source}'s {name}")


def from_timm(state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Return timm's weights of ``name`` (e.g. "legacy_seresnet50") under our names.

    Raises:
        UserError: naming the first key that is unknown, missing or of another shape.
    """
    return _convert_from("timm", state, name)


def to_timm(state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Return our weights under the names of timm's ``name``; raises as ``from_timm``."""
    return _convert_to("timm", state, name)


def from_torchvision(state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Return torchvision's weights of ``name`` (e.g. "resnet50") under our names; raises as ``from_timm``."""
    return _convert_from("torchvision", state, name)


def to_torchvision(state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Return our weights under the names of torchvision's ``name``; raises as ``from_timm``."""
    return _convert_to("torchvision", state, name)
