"""Weights into one of our networks, refused unless the network is the one that they were trained in."""

import logging
from collections.abc import Mapping
from typing import Any

from torch import nn

from senet.errors import UserError
from senet.models import Network
from senet.models.factory import builder_options
from senet.nn import SEConfig
from senet.weights.keys import check_keys
from senet.weights.record import WeightRecord
from senet.weights.sources import Which, read_weights

log = logging.getLogger("senet")
FREE_OPTIONS = ("dropout", "pretrained")
"""Options that no weight depends on."""


def load_weights(spec: str, network: Network, which: Which = "auto") -> WeightRecord:
    """Load the weights ``spec`` into ``network`` and return their record.

    A classifier of another class count is initialised anew, which is logged; everything else must fit.

    Args:
        spec: ``timm:legacy_seresnet50.in1k``, ``torchvision:ResNet50_Weights.IMAGENET1K_V2`` (both
            downloaded once and cached), ``caffe:FILE.caffemodel``, or a file: safetensors, a state dict under
            our names, or one of our checkpoints.
        network: built by ``create_model``.
        which: of a checkpoint's weights, "raw", "ema", or "auto" for those it was chosen by.

    Raises:
        UserError: if the weights cannot be had, or belong to another network; names the setting to change.
    """
    state, record = read_weights(spec, network.record, which)
    check_architecture(network, record.model, spec)
    expected = network.state_dict()
    classes, wanted = record.model["num_classes"], network.record["num_classes"]
    if classes != wanted:
        own = {id(parameter) for parameter in network.classifier().parameters()}
        head = {key for key, value in network.state_dict(keep_vars=True).items() if id(value) in own}
        state = {key: value for key, value in state.items() if key not in head}
        expected = {key: value for key, value in expected.items() if key not in head}
    check_keys(state, expected, spec)
    network.load_state_dict(state, strict=classes == wanted)
    if classes == wanted:
        return record
    for parameter in network.classifier().parameters():
        # As ``Network.initialise`` does: small weights, no bias.
        nn.init.normal_(parameter, std=0.01 if parameter.ndim > 1 else 0.0)
    log.info("%s has %s classes and the data %s: the classifier starts anew", spec, classes, wanted)
    model = {**record.model, "num_classes": wanted}
    return WeightRecord(record.source, model, record.preprocessing, None, (*record.changes, "new classifier"))


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
    for option, default in builder_options(have["name"]).items():
        is_option = _option(have, option, default)
        must_be = _option(needed, option, default)
        if option not in FREE_OPTIONS and is_option != must_be:
            raise UserError(
                f"{spec} needs {option}={must_be}, the network has {option}={is_option}: set "
                f"model.{option}={must_be}"
            )
    if needed["se"] is not None:
        _check_se(network, SEConfig(**have["se"]), SEConfig(**needed["se"]), spec)


def _option(record: Mapping[str, Any], option: str, default: object) -> object:
    return record["options"].get(option, default)


def _check_se(network: Network, have: SEConfig, needed: SEConfig, spec: str) -> None:
    for name, (channels, hidden) in network.se_widths().items():
        if needed.hidden_channels(channels) != hidden:
            axis = "reduction" if needed.reduction != have.reduction else "round_to"
            value = getattr(needed, axis)
            raise UserError(
                f"{spec} needs an excitation of width {needed.hidden_channels(channels)} in {name}, the network "
                f"has {hidden}: set se.{axis}={value}"
            )
    numbers = set(network.stage_numbers())
    for axis in ("squeeze", "gate", "placement", "stages", "bias"):
        is_axis, must_be = getattr(have, axis), getattr(needed, axis)
        if axis == "stages":
            is_axis, must_be = set(is_axis or numbers), set(must_be or numbers)
        if is_axis != must_be:
            value = getattr(needed, axis)
            raise UserError(
                f"{spec} needs se.{axis}={value}, the network has {getattr(have, axis)}: set se.{axis}={value}"
            )
