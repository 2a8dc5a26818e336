"""Weights in: files of ours and of other libraries, refused unless they fit; freezing; our checkpoints."""

from senet.weights.checkpoint import Checkpoint, read_checkpoint
from senet.weights.load import check_architecture, freeze, load_weights, trunk_and_head_parameters
from senet.weights.record import WeightRecord

__all__ = [
    "Checkpoint",
    "WeightRecord",
    "check_architecture",
    "freeze",
    "load_weights",
    "read_checkpoint",
    "trunk_and_head_parameters",
]
