"""senet: train, ablate and evaluate Squeeze-and-Excitation networks (Hu, Shen, Sun: arXiv 1709.01507v4)."""

import lazy_loader

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
