"""Images in: data sets, preprocessing, augmentation, and the order in which samples come.

An image's way: ``sets`` opens a split, ``loader`` chooses the samples of a batch, ``datasets`` makes it in a worker
(``files``, ``augment``), ``inputs`` turns it into what the network sees. Nothing is imported before it is asked for.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
