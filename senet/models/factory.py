"""Names to networks: a plain dictionary of builders, and the one function that calls them."""

import inspect
from collections.abc import Callable
from functools import partial

from senet.errors import UserError, did_you_mean
from senet.models.bn_inception import bn_inception
from senet.models.cifar import cifar_resnet, preact_resnet
from senet.models.inception_resnet_v2 import inception_resnet_v2
from senet.models.inception_v3 import inception_v3
from senet.models.mobilenet import mobilenet
from senet.models.network import Network
from senet.models.resnet import resnet
from senet.models.resnext import resnext
from senet.models.senet154 import senet154
from senet.models.shake_shake import shake_even29, shake_shake26
from senet.models.shufflenet import shufflenet
from senet.models.timm_trunk import timm_trunk
from senet.models.vgg import vgg16_bn
from senet.models.wrn import wrn
from senet.nn import SEConfig

BUILDERS: dict[str, Callable[..., Network]] = {
    **{f"resnet{depth}": partial(resnet, depth) for depth in (18, 34, 50, 101, 152)},
    **{f"resnext{depth}_32x4d": partial(resnext, depth) for depth in (50, 101)},
    "senet154_plain": senet154,
    "vgg16_bn": vgg16_bn,
    "bn_inception": bn_inception,
    "inception_v3": inception_v3,
    "inception_resnet_v2": inception_resnet_v2,
    "mobilenet": mobilenet,
    "shufflenet": shufflenet,
    **{f"resnet{depth}": partial(cifar_resnet, depth) for depth in (20, 32, 44, 56, 110)},
    **{f"preact_resnet{depth}": partial(preact_resnet, depth) for depth in (110, 164)},
    "wrn16_8": wrn,
    "shake_shake26_2x96d": shake_shake26,
    "shake_even29_2x4x64d": shake_even29,
}
"""Every trunk of the zoo by the name of its plain twin."""

FOREIGN: dict[str, Callable[..., Network]] = {"timm": timm_trunk}
"""Trunks of other libraries, which one is an option; ``se_timm`` attaches SE to it."""

_SE_NAMES = {"senet154_plain": "senet154"}
"""SE twins whose name is not ``se_`` and the trunk's."""


def se_twin(name: str) -> str:
    """Return the name of the trunk ``name`` with SE: ``se_resnet50``, but ``senet154`` for its own trunk."""
    return _SE_NAMES.get(name, f"se_{name}")


def _trunks() -> dict[str, str]:
    return {se_twin(trunk): trunk for trunk in (*BUILDERS, *FOREIGN)}


def model_names() -> list[str]:
    """Return the names of the zoo, each trunk followed by its SE twin."""
    return [name for trunk in BUILDERS for name in (trunk, se_twin(trunk))]


def foreign_names() -> list[str]:
    """Return the names under which ``create_model`` takes other libraries' trunks, plain and with SE."""
    return [name for trunk in FOREIGN for name in (trunk, se_twin(trunk))]


def _builder(name: str) -> Callable[..., Network]:
    """Return the builder of ``name``, a network with or without SE."""
    builder = (BUILDERS | FOREIGN).get(plain_twin(name))
    if builder is None:
        names = model_names() + foreign_names()
        raise UserError(f'there is no model "{name}"{did_you_mean(name, names)}')
    return builder


def plain_twin(name: str) -> str:
    """Return the name of the same trunk without SE; the paper's ``senet154`` has ``senet154_plain``."""
    return _trunks().get(name, name)


def is_se(name: str) -> bool:
    """Whether ``name`` builds a network with SE blocks."""
    return name in _trunks()


def builder_options(name: str) -> dict[str, object]:
    """Return the options of a network's family with their defaults, e.g. ``stride_on`` of the ResNets."""
    parameters = inspect.signature(_builder(name)).parameters
    common = {"se", "num_classes", "in_channels", "depth"}
    return {key: p.default for key, p in parameters.items() if key not in common}


def create_model(
    name: str,
    *,
    se: SEConfig | None = None,
    num_classes: int | None = None,
    in_channels: int = 3,
    **options: object,
) -> Network:
    """Build a network by name.

    Args:
        name: one of ``model_names()``, or "timm" or "se_timm" with the option ``timm_name``. ``se_resnet50``
            and ``resnet50`` come from the same builder.
        se: SE configuration for an ``se_`` name, by default ``SEConfig()``; refused for a plain name.
        num_classes: outputs of the classifier; by default 1000, for the CIFAR networks 10, for Shake-Even
            100.
        in_channels: channels of the image.
        options: the family's own options, e.g. ``stride_on`` of the ResNets.

    Raises:
        UserError: for an unknown name or option, or an SE axis that means nothing in this network.
    """
    builder = _builder(name)
    if is_se(name):
        se = se or SEConfig()
    elif se is not None:
        raise UserError(
            f"{name} is the plain twin and has no SE block: drop the se settings or use {se_twin(name)}"
        )
    parameters = inspect.signature(builder).parameters
    if num_classes is None:
        num_classes = int(parameters["num_classes"].default)
    if num_classes < 1 or in_channels < 1:
        raise UserError(f"num_classes={num_classes} and in_channels={in_channels} must be 1 or more")
    valid = builder_options(name)
    for option in options:
        if option not in valid:
            hint = did_you_mean(option, valid) if valid else "; this family has none"
            raise UserError(f'{name} has no option "{option}"{hint}')
    network = builder(se=se, num_classes=num_classes, in_channels=in_channels, **options)
    network.initialise()
    network.record = {
        "name": name,
        "se": se.to_dict() if se else None,
        "num_classes": num_classes,
        "in_channels": in_channels,
        # A network that is rebuilt gets its weights from elsewhere: nothing is downloaded again.
        "options": {key: value for key, value in options.items() if key != "pretrained"},
    }
    return network
