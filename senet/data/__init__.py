"""Images in: data sets, preprocessing, augmentation, and the order in which samples come.

An image's way: ``sets`` opens a split, ``loader`` chooses the samples of a batch, ``datasets`` makes it in a worker
(``files``, ``augment``), ``inputs`` turns it into what the network sees. Nothing is imported before it is asked for.
"""

from typing import TYPE_CHECKING

from senet.lazy import lazily

if TYPE_CHECKING:
    from senet.data.config import AugmentConfig, DataConfig, SamplingConfig
    from senet.data.datasets import Batch
    from senet.data.preprocessing import Preprocessing
    from senet.data.sets import (
        AnyDataConfig,
        CifarConfig,
        CsvConfig,
        DigitsConfig,
        FakeConfig,
        FolderConfig,
        HubConfig,
        PackedConfig,
        SyntheticConfig,
    )
    from senet.data.streams import stream, stream_seed

__all__ = [
    "AnyDataConfig",
    "AugmentConfig",
    "Batch",
    "CifarConfig",
    "CsvConfig",
    "DataConfig",
    "DigitsConfig",
    "FakeConfig",
    "FolderConfig",
    "HubConfig",
    "PackedConfig",
    "Preprocessing",
    "SamplingConfig",
    "SyntheticConfig",
    "stream",
    "stream_seed",
]

__getattr__ = lazily(
    __name__,
    {
        **dict.fromkeys(("AugmentConfig", "DataConfig", "SamplingConfig"), "senet.data.config"),
        "Batch": "senet.data.datasets",
        "Preprocessing": "senet.data.preprocessing",
        **dict.fromkeys(
            ("AnyDataConfig", "CifarConfig", "CsvConfig", "DigitsConfig", "FakeConfig"), "senet.data.sets"
        ),
        **dict.fromkeys(("FolderConfig", "HubConfig", "PackedConfig", "SyntheticConfig"), "senet.data.sets"),
        **dict.fromkeys(("stream", "stream_seed"), "senet.data.streams"),
    },
)
