"""The networks of the paper, each with its plain twin from the same builder."""

from typing import TYPE_CHECKING

from senet.lazy import lazily

if TYPE_CHECKING:
    from senet.models.cost import Cost, complexity, count_macs, count_parameters
    from senet.models.factory import create_model, without_memory
    from senet.models.families import foreign_names, is_se, model_names, plain_twin, se_twin
    from senet.models.network import Network

__all__ = [
    "Cost",
    "Network",
    "complexity",
    "count_macs",
    "count_parameters",
    "create_model",
    "foreign_names",
    "is_se",
    "model_names",
    "plain_twin",
    "se_twin",
    "without_memory",
]

__getattr__ = lazily(
    __name__,
    {
        **dict.fromkeys(("Cost", "complexity", "count_macs", "count_parameters"), "senet.models.cost"),
        **dict.fromkeys(("create_model", "without_memory"), "senet.models.factory"),
        **dict.fromkeys(
            ("foreign_names", "is_se", "model_names", "plain_twin", "se_twin"), "senet.models.families"
        ),
        "Network": "senet.models.network",
    },
)
