"""Weights in: converters from timm, torchvision and the Caffe lineage, strict in both directions."""

from senet.weights.finetune import freeze, trunk_and_head_parameters
from senet.weights.load import check_architecture, load_weights
from senet.weights.peers import (
    Peer,
    convert_from,
    convert_to,
    from_timm,
    from_torchvision,
    peer,
    to_timm,
    to_torchvision,
)
from senet.weights.record import Preprocessing, WeightRecord

__all__ = [
    "Peer",
    "Preprocessing",
    "WeightRecord",
    "check_architecture",
    "convert_from",
    "convert_to",
    "freeze",
    "from_timm",
    "from_torchvision",
    "load_weights",
    "peer",
    "to_timm",
    "to_torchvision",
    "trunk_and_head_parameters",
]
