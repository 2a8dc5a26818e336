"""The networks of the paper, each with its plain twin from the same builder."""

from senet.models.attach import AttachReport, attach_se
from senet.models.complexity import Cost, complexity, count_macs, count_parameters
from senet.models.factory import create_model, foreign_names, is_se, model_names, plain_twin, se_twin
from senet.models.network import Network

__all__ = [
    "AttachReport",
    "Cost",
    "Network",
    "attach_se",
    "complexity",
    "count_macs",
    "count_parameters",
    "create_model",
    "foreign_names",
    "is_se",
    "model_names",
    "plain_twin",
    "se_twin",
]
