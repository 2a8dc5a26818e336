"""senet: train, ablate and evaluate Squeeze-and-Excitation networks (Hu, Shen, Sun: arXiv 1709.01507v4)."""

from importlib.metadata import version

from senet.errors import UserError
from senet.models import create_model, model_names
from senet.nn import SEConfig, SqueezeExcitation

__version__ = version("senet")
__all__ = ["SEConfig", "SqueezeExcitation", "UserError", "__version__", "create_model", "model_names"]
