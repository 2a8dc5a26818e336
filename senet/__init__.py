"""senet: train, ablate and evaluate Squeeze-and-Excitation networks (Hu, Shen, Sun: arXiv 1709.01507v4)."""

from typing import TYPE_CHECKING

from senet.errors import UserError
from senet.lazy import lazily

if TYPE_CHECKING:
    from senet.models import create_model, model_names
    from senet.nn import SEConfig, SqueezeExcitation

__version__ = "0.1.0"
__all__ = ["SEConfig", "SqueezeExcitation", "UserError", "__version__", "create_model", "model_names"]

__getattr__ = lazily(
    __name__,
    {
        "SEConfig": "senet.nn.config",
        "SqueezeExcitation": "senet.nn.se",
        "create_model": "senet.models.factory",
        "model_names": "senet.models.families",
    },
)
