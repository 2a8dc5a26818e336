"""The networks of the paper, each with its plain twin from the same builder."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
