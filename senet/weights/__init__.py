"""Weights in: converters from timm, torchvision and the Caffe lineage, strict in both directions."""

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

__all__ = [
    "Peer",
    "convert_from",
    "convert_to",
    "from_timm",
    "from_torchvision",
    "peer",
    "to_timm",
    "to_torchvision",
]
