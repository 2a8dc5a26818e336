"""Images in: data sets, preprocessing, augmentation, and the order in which samples come.

``senet.data.module.ImageData``, the Lightning DataModule, is not imported here: it takes seconds to import.
"""

from senet.data.augment import AugmentConfig
from senet.data.config import (
    AnyDataConfig,
    CifarConfig,
    DataConfig,
    DigitsConfig,
    FakeConfig,
    FolderConfig,
    PackedConfig,
    SyntheticConfig,
)
from senet.data.datasets import Batch
from senet.data.preprocessing import Preprocessing
from senet.data.sampling import SamplingConfig
from senet.data.streams import stream, stream_seed

__all__ = [
    "AnyDataConfig",
    "AugmentConfig",
    "Batch",
    "CifarConfig",
    "DataConfig",
    "DigitsConfig",
    "FakeConfig",
    "FolderConfig",
    "PackedConfig",
    "Preprocessing",
    "SamplingConfig",
    "SyntheticConfig",
    "stream",
    "stream_seed",
]
