"""Weights into one of our networks, refused unless it is the one that they were trained in; what then stands still."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from typing import Any

from torch import Tensor, nn

from senet.errors import UserError
from senet.models import Network, is_se, plain_twin, se_twin
from senet.models.families import model_options
from senet.nn import SEConfig
from senet.weights.checkpoint import Averaging
from senet.weights.read import read_weights
from senet.weights.record import NEW_CLASSIFIER, WeightRecord, check_keys

log = logging.getLogger("senet")
FREE_OPTIONS = ("dropout", "pretrained")
"""Options that no weight depends on."""
BY_WIDTH = ("reduction", "round_to")
"""Axes of SE that are compared by the widths they give; all others by their value, those to come included."""


def load_weights(spec: str, network: Network, weights: Averaging = "auto") -> WeightRecord:
    """Load the weights ``spec`` into ``network`` and return their record.

    A classifier of another class count is initialised anew, which is logged; everything else must fit.

    Args:
        spec: ``timm:legacy_seresnet50.in1k``, ``torchvision:ResNet50_Weights.IMAGENET1K_V2`` (both
            downloaded once and cached), ``caffe:FILE.caffemodel``, or a file, recognised by what is in it: one of
            our checkpoints, a state dict of ours, timm's or torchvision's names in whatever wrappers, safetensors.
        network: built by ``create_model``.
        weights: of a checkpoint's weights, "raw", "ema", or "auto" for those it was chosen by.

    Raises:
        UserError: if the weights cannot be had, or belong to another network; names the setting to change.
    """
    expected = network.state_dict()
    state, record, _ = read_weights(spec, network.record, weights, expected)
    known = record.recognised.partition(",")[0]
    check_architecture(network, record.model, f"{spec}, {known}," if known.startswith("recognised") else spec)
    classes, wanted = record.model["num_classes"], network.record["num_classes"]
    if classes != wanted:
        own = {id(parameter) for parameter in network.classifier().parameters()}
        head = {key for key, value in network.state_dict(keep_vars=True).items() if id(value) in own}
        state = {key: value for key, value in state.items() if key not in head}
        expected = {key: value for key, value in expected.items() if key not in head}
    try:
        check_keys(state, expected, spec)
    except UserError as error:
        raise UserError(f"{error}{_se_hint(state, network)}") from error
    network.load_state_dict(state, strict=classes == wanted)
    if classes == wanted:
        return record
    new_classifier(network)
    log.info("%s has %s classes and the data %s: the classifier starts anew", spec, classes or "no", wanted)
    model = {**record.model, "num_classes": wanted}
    changes = (*record.changes, NEW_CLASSIFIER)
    return replace(record, model=model, class_order=None, classes=None, changes=changes)


def new_classifier(network: Network) -> None:
    """Initialise the classifier as ``Network.initialise`` does: small weights, no bias."""
    for parameter in network.classifier().parameters():
        nn.init.normal_(parameter, std=0.01 if parameter.ndim > 1 else 0.0)


def _se_hint(state: Mapping[str, Tensor], network: Network) -> str:
    """Return the setting to change where a file without a record has SE and the network has not, or otherwise."""
    name = str(network.record["name"])
    first = next((key for key in state if key.endswith(".excitation.fc1.weight")), None)
    if (first is not None) == is_se(name):
        ours = network.state_dict().get(first or "")
        if first is None or ours is None or ours.shape == state[first].shape:
            return ""
        hidden, channels = state[first].shape[:2]
        return f": set se.reduction={channels // hidden}, which gives this width"
    return f": set model={plain_twin(name) if is_se(name) else se_twin(name)}"


def check_architecture(network: Network, needed: Mapping[str, Any], spec: str) -> None:
    """Refuse a network that is not the one ``needed`` (a ``Network.record``), even where all shapes agree.

    Raises:
        UserError: naming the first setting to change.
    """
    have: Mapping[str, Any] = network.record
    if have["name"] != needed["name"]:
        raise UserError(
            f"{spec} needs the network {needed['name']}, not {have['name']}: set model={needed['name']}"
        )
    if have["in_channels"] != needed["in_channels"]:
        raise UserError(
            f"{spec} is for images of {needed['in_channels']} channel(s), the network has "
            f"{have['in_channels']}: set data.preprocessing.colour"
        )
    for option, default in model_options(have["name"]).items():
        is_option, must_be = (record["options"].get(option, default) for record in (have, needed))
        if option not in FREE_OPTIONS:
            _demand(spec, option, is_option, must_be, section="model.")
    if needed["se"] is not None:
        _check_se(network, SEConfig.from_dict(have["se"]), SEConfig.from_dict(needed["se"]), spec)


def _demand(spec: str, key: str, have: object, needed: object, section: str = "") -> None:
    if have != needed:
        raise UserError(f"{spec} needs {key}={needed}, the network has {have}: set {section}{key}={needed}")


def _check_se(network: Network, have: SEConfig, needed: SEConfig, spec: str) -> None:
    _demand(spec, "se.block", have.block, needed.block)
    for name, (channels, hidden) in network.se_widths().items():
        if hidden is not None and needed.hidden_channels(channels) != hidden:
            axis = "reduction" if needed.reduction != have.reduction else "round_to"
            raise UserError(
                f"{spec} needs an excitation of width {needed.hidden_channels(channels)} in {name}, the network "
                f"has {hidden}: set se.{axis}={getattr(needed, axis)}"
            )
    numbers = network.stage_numbers()
    for axis in (field.name for field in fields(needed)):
        same_stages = axis == "stages" and _stages(have, numbers) == _stages(needed, numbers)
        if axis not in BY_WIDTH and not same_stages:
            _demand(spec, f"se.{axis}", getattr(have, axis), getattr(needed, axis))


def _stages(se: SEConfig, numbers: Iterable[int]) -> set[int]:
    return set(numbers if se.stages is None else se.stages)


def freeze(network: Network, up_to_stage: int) -> None:
    """Freeze the stem and all stages up to number ``up_to_stage``.

    Their parameters take no gradient, and they stay in evaluation mode when ``network.train()`` is called:
    BN normalises with its running statistics and does not move them, which a rate of 0 would not achieve.

    Raises:
        UserError: if the network has no such stage.
    """
    numbers = network.stage_numbers()
    if up_to_stage not in numbers:
        raise UserError(
            f"freeze={up_to_stage}: the network has stages {', '.join(map(str, numbers)) or 'none'}"
        )
    network.frozen = network.parts_up_to(up_to_stage)
    for part in network.frozen:
        part.requires_grad_(False)
    network.train(network.training)


def trunk_and_head_parameters(network: Network) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return the learnable parameters of everything before the classifier, and of the classifier."""
    head = [parameter for parameter in network.classifier().parameters() if parameter.requires_grad]
    apart = {id(parameter) for parameter in head}
    trunk = [p for p in network.parameters() if p.requires_grad and id(p) not in apart]
    return trunk, head
