"""Weights that timm downloads, e.g. ``timm:legacy_seresnet50.in1k``; without a tag timm's default ones."""

import math
from collections.abc import Mapping
from typing import Any

import timm

from senet.data.preprocessing import Preprocessing
from senet.errors import UserError, did_you_mean
from senet.integrations.peers import fetching, from_timm, peer
from senet.weights.record import CLASS_ORDER, WeightRecord, Weights


def read(name: str, model: Mapping[str, Any]) -> Weights:
    """Download the weights ``name``, once.

    Raises:
        UserError: for a name or a tag that there is not, or without a network.
    """
    del model  # timm's name says which network it is
    architecture, _, tag = name.partition(".")
    match = peer("timm", architecture)
    released = timm.list_pretrained(f"{architecture}.*")
    if tag and name not in released:
        raise UserError(f'timm has no weights "{name}"{did_you_mean(name, released)}')
    if not released:
        raise UserError(f"timm released no weights of {architecture}")
    with fetching(f"timm:{name}"):
        theirs: Any = timm.create_model(name, pretrained=True)
    state = from_timm(theirs.state_dict(), architecture)
    cfg = theirs.pretrained_cfg
    size = cfg["input_size"][-1]
    preprocessing = Preprocessing(
        size=size,
        resize=math.floor(size / cfg["crop_pct"]),
        interpolation=cfg["interpolation"],
        mean=cfg["mean"],
        std=cfg["std"],
    )
    source = f"timm:{architecture}.{cfg['tag']}"
    return Weights(state, WeightRecord(source, match.record(state), preprocessing, CLASS_ORDER))
