"""Which foreign network is which of ours, and the converters in both directions.

``from_*`` reads a table of names from left to right, ``to_*`` from right to left. Both demand every key and
every shape of the network they name.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pickle import UnpicklingError
from typing import Any, Literal

from safetensors import SafetensorError
from torch import Tensor

from senet.errors import UserError, did_you_mean, in_a_line
from senet.integrations import module_names
from senet.integrations.rename import Rule, rename, reverse
from senet.models import Network, create_model, without_memory
from senet.nn import SEConfig
from senet.weights.record import check_keys

Source = Literal["timm", "torchvision", "caffe", "cifar"]


@dataclass(frozen=True)
class Peer:
    """One of our networks in another library's version of it.

    Attributes:
        model: our name, as ``create_model`` takes it.
        rules: (their module, our module) for every module that has weights.
        options: the architecture options that the weights need.
        se: the SE configuration that the weights need; None for a plain network.
        dropped: the beginning of the keys that belong to a part ours does not have.
    """

    model: str
    rules: tuple[Rule, ...]
    options: Mapping[str, object] = field(default_factory=dict)
    se: SEConfig | None = None
    dropped: str | None = None

    def build(self, num_classes: int = 1000, in_channels: int = 3) -> Network:
        """Return our network with the options that these weights need."""
        return create_model(
            self.model, se=self.se, num_classes=num_classes, in_channels=in_channels, **self.options
        )

    def record(self, state: Mapping[str, Tensor]) -> dict[str, Any]:
        """Return the ``Network.record`` of our network with the weights ``state`` (under our names)."""
        first = next(tensor for tensor in state.values() if tensor.ndim == 4)
        return {
            "name": self.model,
            "se": self.se.to_dict() if self.se else None,
            "num_classes": len(state.get("head.fc.weight", ())),
            "in_channels": first.shape[1],
            "options": dict(self.options),
        }


_BASIC, _BOTTLENECK = module_names.resnet(2), module_names.resnet(3)
_PADDED = {"stem_pool": "pad"}
_EXACT, _ROUNDED = SEConfig(), SEConfig(round_to=8)

_SHARED: dict[str, Peer] = {
    **{f"resnet{depth}": Peer(f"resnet{depth}", _BASIC, _PADDED) for depth in (18, 34)},
    **{
        f"resnet{depth}": Peer(f"resnet{depth}", _BOTTLENECK, {"stride_on": "3x3", **_PADDED})
        for depth in (50, 101, 152)
    },
    "resnext50_32x4d": Peer("resnext50_32x4d", _BOTTLENECK, _PADDED),
    "inception_v3": Peer("inception_v3", module_names.inception_v3(), dropped="AuxLogits."),
}

PEERS: dict[Source, dict[str, Peer]] = {
    "torchvision": {**_SHARED, "vgg16_bn": Peer("vgg16_bn", module_names.vgg16_bn())},
    "timm": {
        **_SHARED,
        "resnext101_32x4d": Peer("resnext101_32x4d", _BOTTLENECK, _PADDED),
        "inception_resnet_v2": Peer("inception_resnet_v2", module_names.inception_resnet_v2()),
        **{
            f"se{name}": Peer(f"se_{name}", peer.rules, peer.options, _ROUNDED)
            for name, peer in _SHARED.items()
            if name.startswith("res")
        },
        "seresnext101_32x4d": Peer("se_resnext101_32x4d", _BOTTLENECK, _PADDED, _ROUNDED),
        **{
            f"legacy_seresnet{depth}": Peer(
                f"se_resnet{depth}", module_names.legacy(2), {"branch_relu": True}, _EXACT
            )
            for depth in (18, 34)
        },
        **{
            f"legacy_seresnet{depth}": Peer(
                f"se_resnet{depth}", module_names.legacy(3), {"stride_on": "1x1"}, _EXACT
            )
            for depth in (50, 101, 152)
        },
        **{
            f"legacy_seresnext{depth}_32x4d": Peer(
                f"se_resnext{depth}_32x4d", module_names.legacy(3), se=_EXACT
            )
            for depth in (50, 101)
        },
        "legacy_senet154": Peer("senet154", module_names.legacy(3, stem_convs=3), se=_EXACT),
    },
    "caffe": {
        "SE-BN-Inception": Peer("se_bn_inception", module_names.caffe_bn_inception(), se=_EXACT),
        **{
            f"SE-ResNet-{depth}": Peer(
                f"se_resnet{depth}", module_names.caffe_resnet(depth), {"stride_on": "1x1"}, _EXACT
            )
            for depth in (50, 101, 152)
        },
        **{
            f"SE-ResNeXt-{depth}": Peer(
                f"se_resnext{depth}_32x4d", module_names.caffe_resnet(depth), se=_EXACT
            )
            for depth in (50, 101)
        },
        "SENet-154": Peer("senet154", module_names.caffe_senet154(), se=_EXACT),
    },
    "cifar": {
        f"resnet{depth}": Peer(f"resnet{depth}", module_names.cifar_resnet(), {"zero_channels": "both"})
        for depth in (20, 32, 44, 56, 110)
    },
}


def peer(source: Source, name: str) -> Peer:
    """Return the entry of ``name`` in ``source``.

    Raises:
        UserError: if there is no converter for it.
    """
    table = PEERS[source]
    if name not in table:
        raise UserError(f'there is no converter for {source}\'s "{name}"{did_you_mean(name, table)}')
    return table[name]


def expected(match: Peer, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return our network's keys and shapes, with the class and channel counts of ``state`` (ours)."""
    fc = state.get("head.fc.weight")
    num_classes = 1000 if fc is None else len(fc)
    with without_memory():
        needed = match.build(num_classes).state_dict()
        stem = next(iter(needed))
        channels = state[stem].shape[1] if stem in state else 3
        return needed if channels == 3 else match.build(num_classes, channels).state_dict()


@contextmanager
def fetching(
    spec: str, instead: str = "fetch the weights where there is a network and give the FILE"
) -> Iterator[None]:
    """Make one line of what a library says when it downloads weights, or finds them in its cache, in vain.

    Args:
        spec: what is fetched.
        instead: what to do without a network.

    Raises:
        UserError: in place of the library's error.
    """
    hub = logging.getLogger("huggingface_hub")
    level = hub.level
    hub.setLevel(logging.ERROR)  # its retries say the same thing ten times
    try:
        yield
    except (OSError, RuntimeError, EOFError, UnpicklingError, SafetensorError) as error:
        of_system = isinstance(error, OSError) and error.errno is not None
        if isinstance(error, ConnectionError | TimeoutError) or (
            isinstance(error, OSError) and not of_system
        ):
            raise UserError(
                f"{spec} could not be downloaded ({type(error).__name__}): this machine seems to be offline; {instead}"
            ) from error
        raise UserError(
            f"{spec} cannot be had ({in_a_line(error)}); a file that lies damaged in a cache is to be removed there"
        ) from error
    finally:
        hub.setLevel(level)


def convert_from(source: Source, state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Return the weights ``state`` of ``name`` in ``source`` under our names.

    Raises:
        UserError: naming the first key that is unknown, missing or of another shape.
    """
    match = peer(source, name)
    if match.dropped:
        state = {key: tensor for key, tensor in state.items() if not key.startswith(match.dropped)}
    ours = rename(state, match.rules, f"{source}'s {name}")
    check_keys(ours, expected(match, ours), f"the weights of {source}'s {name}")
    return ours


def convert_to(source: Source, state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Return our weights ``state`` under the names that ``source`` has for ``name``; raises the same."""
    match = peer(source, name)
    check_keys(state, expected(match, state), f"the weights to write as {source}'s {name}")
    return rename(state, reverse(match.rules), f"{source}'s {name}")


def from_timm(state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Return timm's weights of ``name`` (e.g. "legacy_seresnet50") under our names, or raise a UserError."""
    return convert_from("timm", state, name)


def to_timm(state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Return our weights under the names of timm's ``name``, or raise a UserError."""
    return convert_to("timm", state, name)


def from_torchvision(state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Return torchvision's weights of ``name`` (e.g. "resnet50") under our names, or raise a UserError."""
    return convert_from("torchvision", state, name)


def to_torchvision(state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Return our weights under the names of torchvision's ``name``, or raise a UserError."""
    return convert_to("torchvision", state, name)
