"""The keys of each data set: one frozen class per ``data=`` choice, so that no key is ever ignored."""

from dataclasses import dataclass, field
from typing import Literal

from senet.data.preprocessing import Preprocessing


@dataclass(frozen=True)
class DataConfig:
    """What every data set has.

    Attributes:
        batch_size: images per device and step.
        eval_batch_size: images per device and step in evaluation; ``None`` takes ``batch_size``.
        workers: processes that decode images; ``None`` takes the cores this job may use, shared by its
            devices. Data held in memory needs none.
        preprocessing: resize, crop and normalisation.
    """

    batch_size: int = 128
    eval_batch_size: int | None = None
    workers: int | None = None
    preprocessing: Preprocessing = field(default_factory=Preprocessing)


@dataclass(frozen=True)
class DigitsConfig(DataConfig):
    """scikit-learn's 1,797 handwritten digits of 8 x 8 pixels, split 1,437 / 360 by class."""

    name: Literal["digits"] = "digits"


@dataclass(frozen=True)
class FolderConfig(DataConfig):
    """A tree ``root/{train,val}/CLASS/*``; ``test/`` is accepted for ``val/``.

    Attributes:
        root: the folder that holds ``train/`` and ``val/`` or ``test/``.
        in_memory: decode everything once and keep it as uint8; ``None`` does so for images of up to 64 pixels
            that need no resizing, such as CIFAR's.
        name: "imagefolder", or "imagenet" for the same with ImageNet's settings.
    """

    root: str = ""
    in_memory: bool | None = None
    name: Literal["imagefolder", "imagenet"] = "imagefolder"

    @property
    def keeps_in_memory(self) -> bool:
        """Whether the images are decoded once and kept."""
        tiny = self.preprocessing.resize is None and self.preprocessing.size <= 64
        return tiny if self.in_memory is None else self.in_memory


@dataclass(frozen=True)
class CifarConfig(DataConfig):
    """CIFAR-10 or CIFAR-100, in torchvision's format or as an image folder.

    Attributes:
        root: where the data lies or goes.
        download: fetch it if it is not there.
        name: which of the two.
    """

    root: str = "data"
    download: bool = True
    name: Literal["cifar10", "cifar100"] = "cifar10"


@dataclass(frozen=True)
class SyntheticConfig(DataConfig):
    """Random images in memory, for benchmarks and tests.

    Attributes:
        train_images: number of training images.
        val_images: number of validation images.
        num_classes: number of classes.
    """

    train_images: int = 256
    val_images: int = 64
    num_classes: int = 10
    name: Literal["synthetic"] = "synthetic"


AnyDataConfig = DigitsConfig | FolderConfig | CifarConfig | SyntheticConfig
