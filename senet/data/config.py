"""The keys of each data set: one frozen class per ``data=`` choice, so that no key is ever ignored."""

from dataclasses import dataclass, field
from typing import Literal

from senet.data.decoders import DecoderName
from senet.data.preprocessing import Preprocessing
from senet.data.remote import is_address
from senet.data.sampling import SamplingConfig
from senet.errors import UserError


@dataclass(frozen=True)
class DataConfig:
    """What every data set has.

    Attributes:
        batch_size: images per device and step.
        eval_batch_size: images per device and step in evaluation; ``None`` takes ``batch_size``.
        workers: processes that decode images; ``None`` takes the cores this job may use, shared by its
            devices. Data held in memory needs none.
        preprocessing: resize, crop and normalisation.
        sampling: what an epoch is made of.
    """

    batch_size: int = 128
    eval_batch_size: int | None = None
    workers: int | None = None
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)


@dataclass(frozen=True)
class DigitsConfig(DataConfig):
    """scikit-learn's 1,797 handwritten digits of 8 x 8 pixels, split 1,437 / 360 by class."""

    name: Literal["digits"] = "digits"


@dataclass(frozen=True)
class FilesConfig(DataConfig):
    """Images that are decoded as they are needed.

    Attributes:
        root: the folder that holds ``train/`` and ``val/``.
        decoder: "reference" (Pillow), "fast" (nvImageCodec for the crops of training and torchcodec, as far as they
            are installed, with Pillow's pixels) or "gpu" (nvJPEG, whose pixels differ a little).
        on_bad_image: what training does with an image that cannot be read: "fail" at once, or "skip" it and
            enter it in the run's ledger. Nothing ever stands in for it.
        eval_on_bad_image: what evaluation does with one: "fail" at once, or "count" it as wrong.
    """

    root: str = ""
    decoder: DecoderName = "fast"
    on_bad_image: Literal["fail", "skip"] = "fail"
    eval_on_bad_image: Literal["fail", "count"] = "fail"


@dataclass(frozen=True)
class FolderConfig(FilesConfig):
    """A tree ``root/{train,val}/CLASS/*``; ``test/`` is accepted for ``val/``.

    Attributes:
        in_memory: decode everything once and keep it as uint8; ``None`` does so for images of up to 64 pixels
            that need no resizing, such as CIFAR's.
        name: "imagefolder", or "imagenet" for the same with ImageNet's settings.
    """

    in_memory: bool | None = None
    name: Literal["imagefolder", "imagenet"] = "imagefolder"

    def __post_init__(self) -> None:
        if self.keeps_in_memory and self.on_bad_image != "fail":
            raise UserError(
                "data.on_bad_image=skip works on images read from files as they are needed: set data.in_memory=false"
            )

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


@dataclass(frozen=True)
class PackedConfig(FilesConfig):
    """What ``senet pack`` wrote: a few large files of encoded images.

    Attributes:
        root: a folder, or an address of any kind fsspec knows, such as s3://BUCKET/PACK.
        cache: where files from an address are kept; ``None`` takes the user's cache folder.
    """

    cache: str | None = None
    name: Literal["packed"] = "packed"

    def __post_init__(self) -> None:
        if self.cache is not None and not is_address(self.root):
            raise UserError(
                f"data.cache={self.cache} keeps copies of a pack at an address; data.root={self.root} is none"
            )


@dataclass(frozen=True)
class FakeConfig(FolderConfig):
    """A folder of made-up photographs, written to ``root`` unless it is there, for tests and benchmarks.

    Attributes:
        num_classes: number of classes; a class shows in its colours.
        train_per_class: training images of each class.
        val_per_class: validation images of each class.
        sides: smallest and largest side in pixels.
    """

    root: str = "data/imagenet_fake"
    num_classes: int = 10
    train_per_class: int = 50
    val_per_class: int = 10
    sides: tuple[int, int] = (256, 512)
    name: Literal["imagenet_fake"] = "imagenet_fake"  # type: ignore[assignment]


AnyDataConfig = DigitsConfig | FolderConfig | PackedConfig | FakeConfig | CifarConfig | SyntheticConfig
