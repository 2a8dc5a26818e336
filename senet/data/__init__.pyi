from .config import AugmentConfig as AugmentConfig, DataConfig as DataConfig, SamplingConfig as SamplingConfig
from .datasets import Batch as Batch
from .preprocessing import Preprocessing as Preprocessing
from .sets import (
    AnyDataConfig as AnyDataConfig,
    CifarConfig as CifarConfig,
    CsvConfig as CsvConfig,
    DigitsConfig as DigitsConfig,
    FakeConfig as FakeConfig,
    FolderConfig as FolderConfig,
    HubConfig as HubConfig,
    PackedConfig as PackedConfig,
    SyntheticConfig as SyntheticConfig,
)
from .streams import stream as stream, stream_seed as stream_seed
