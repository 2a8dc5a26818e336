"""senet: train, ablate and evaluate Squeeze-and-Excitation networks (Hu, Shen, Sun: arXiv 1709.01507v4)."""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

from senet.errors import UserError

if TYPE_CHECKING:
    from senet.models import create_model, model_names
    from senet.nn import SEConfig, SqueezeExcitation

__version__ = version("senet")
__all__ = ["SEConfig", "SqueezeExcitation", "UserError", "__version__", "create_model", "model_names"]

_HOME = {
    "SEConfig": "senet.nn",
    "SqueezeExcitation": "senet.nn",
    "create_model": "senet.models",
    "model_names": "senet.models",
}


def __getattr__(name: str) -> object:
    """Import torch with the first use of it: ``senet --help`` and a misspelt command need none."""
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
