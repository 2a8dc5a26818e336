"""The data sets there are, one class each: its keys and how it opens a split. Read without torch."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import PlainValidator, TypeAdapter

from senet.data.config import DATA_SETS, DataConfig, FilesConfig, SplitName, is_address
from senet.data.preprocessing import Preprocessing
from senet.errors import UserError, did_you_mean
from senet.plugins import integration
from senet.ranges import Classes, Count, Side

if TYPE_CHECKING:
    from senet.data.datasets import MemoryDataset
    from senet.data.files import Records

FOLDERS = {"train": ("train",), "val": ("val", "test")}


@dataclass(frozen=True)
class FolderConfig(FilesConfig):
    """A tree ``root/{train,val}/CLASS/*``; ``test/`` is accepted for ``val/``.

    With ``val_fraction`` or folds, ``root/train/CLASS/*`` or ``root/CLASS/*`` is enough, as is the latter to evaluate.

    Attributes:
        in_memory: decode everything once and keep it as uint8; ``None`` does so for images of up to 64 pixels
            that need no resizing, such as CIFAR's.
        name: "imagefolder", or "imagenet" or "places365" for the same with their settings; "imagenet_v2" (Recht et al.
            2019, arXiv 1902.10811), whose folders ``root/0`` ... ``root/999`` are for evaluation alone.
    """

    in_memory: bool | None = None
    name: Literal["imagefolder", "imagenet", "places365", "imagenet_v2"] = "imagefolder"

    def __post_init__(self) -> None:
        for key in ("on_bad_image", "eval_on_bad_image"):
            if self.keeps_in_memory and getattr(self, key) != "fail":
                raise UserError(
                    f"data.{key}={getattr(self, key)} works on images read from files as they are needed: set "
                    "data.in_memory=false"
                )

    @property
    def keeps_in_memory(self) -> bool:
        tiny = self.preprocessing.resize is None and self.preprocessing.size <= 64
        return tiny if self.in_memory is None else self.in_memory

    def records(self, split: SplitName, classes: list[str] | None) -> "Records":
        from senet.data.files.folder import scan

        if self.name == "imagenet_v2" and split == "train":
            raise UserError("data=imagenet_v2 has no training images: it is for eval.py")
        return scan(self.folder(split), classes)

    def folder(self, split: SplitName) -> Path:
        """Return the folder of a split's class folders.

        Raises:
            UserError: if there is none.
        """
        from senet.data.files.folder import class_folders, find_split, refuse_splits

        root, splits = Path(self.root).expanduser(), [name for names in FOLDERS.values() for name in names]
        alone = root.is_dir() and not any((root / name).is_dir() for name in splits)
        if alone and (self.holds_out or (split == "val" and class_folders(root))):
            refuse_splits(root)
            return root  # the classes lie under it itself; to train on them, holds_out
        return find_split(root, FOLDERS[split])


@dataclass(frozen=True)
class CsvConfig(FilesConfig):
    """Image files whose labels stand in a file: columns path, label and, if there is one, split.

    Attributes:
        file: CSV, or what a spreadsheet calls so: with a byte-order mark, semicolons or tabs.
        root: the folder that paths are relative to; by default the file's.
    """

    file: str = ""
    name: Literal["csv"] = "csv"

    def open(self, split: SplitName, preprocessing: Preprocessing, classes: list[str] | None) -> object:
        return self.records(split, classes)

    def records(self, split: SplitName, classes: list[str] | None) -> "Records":
        if not self.file:
            raise UserError("data.file is not set: name the file with the columns path, label and split")
        file = Path(self.file).expanduser()
        root = Path(self.root).expanduser() if self.root else file.parent
        spreadsheet = integration("spreadsheet", package="csv", asked="data=csv")
        found: Records = spreadsheet.read_labels(file, root, split, classes, self.holds_out)
        return found

    def moved(self, root: str, asked: str) -> DataConfig:
        file = Path(root).expanduser() / Path(self.file).name  # which moves with its images
        return replace(self, root=root, file=str(file) if file.is_file() else self.file)


@dataclass(frozen=True)
class HubConfig(FilesConfig):
    """An image data set of the Hugging Face Hub, by its name or as a folder; needs the package ``datasets``.

    Attributes:
        dataset: OWNER/NAME, or a folder that ``datasets`` reads or wrote.
    """

    dataset: str = ""
    name: Literal["huggingface"] = "huggingface"

    def __post_init__(self) -> None:
        if self.root:
            raise UserError(
                f"data.root={self.root} has no effect on data=huggingface: data.dataset names a folder, too"
            )

    def open(self, split: SplitName, preprocessing: Preprocessing, classes: list[str] | None) -> object:
        if not self.dataset:
            raise UserError("data.dataset is not set: give OWNER/NAME of the Hub, or a folder")
        hub = integration("hub_datasets", package="datasets", asked="data=huggingface", extra="huggingface")
        return hub.open_split(self.dataset, split, classes)


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
    num_classes: Classes = 10
    train_per_class: Count = 50
    val_per_class: Count = 10
    sides: tuple[Side, Side] = (256, 512)
    name: Literal["imagenet_fake"] = "imagenet_fake"  # type: ignore[assignment]

    def records(self, split: SplitName, classes: list[str] | None) -> "Records":
        self.write()
        return super().records(split, classes)

    def write(self) -> None:
        """Write the photographs, unless they are there."""
        from senet.data.tools.fake import write_photographs

        counts = {"train": self.train_per_class, "val": self.val_per_class}
        write_photographs(Path(self.root).expanduser(), self.num_classes, counts, self.sides)


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

    def records(self, split: SplitName, classes: list[str] | None) -> "Records":
        from senet.data.files.packed import PackedRecords

        return PackedRecords(self.root, split, self.cache)


@dataclass(frozen=True)
class CifarConfig(DataConfig):
    """CIFAR-10 or CIFAR-100, in torchvision's format or as an image folder, which is then held in memory.

    Attributes:
        root: where the data lies or goes.
        download: fetch it if it is not there.
        name: which of the two.
    """

    root: str = "data"
    download: bool = True
    name: Literal["cifar10", "cifar100"] = "cifar10"

    def open(self, split: SplitName, preprocessing: Preprocessing, classes: list[str] | None) -> object:
        """Return a split, fetched if allowed.

        Raises:
            UserError: if the files are absent and cannot be fetched.
        """
        if (Path(self.root).expanduser() / "train").is_dir():
            return FolderConfig(root=self.root).records(split, classes)
        return integration("torchvision_data").cifar(self.name, self.root, split, self.download)


@dataclass(frozen=True)
class DigitsConfig(DataConfig):
    """scikit-learn's 1,797 handwritten digits of 8 x 8 pixels: 1,437 to train, 360 held out, the same for all."""

    name: Literal["digits"] = "digits"

    def open(self, split: SplitName, preprocessing: Preprocessing, classes: list[str] | None) -> object:
        return integration("sklearn_digits").digits(split)


@dataclass(frozen=True)
class SyntheticConfig(DataConfig):
    """Random images in memory, whose mean brightness tells the class, for benchmarks and tests.

    Attributes:
        train_images: number of training images.
        val_images: number of validation images.
        num_classes: number of classes.
    """

    train_images: Count = 256
    val_images: Count = 64
    num_classes: Classes = 10
    name: Literal["synthetic"] = "synthetic"

    def open(
        self, split: SplitName, preprocessing: Preprocessing, classes: list[str] | None
    ) -> "MemoryDataset":
        import torch

        from senet.data.datasets import MemoryDataset

        images = self.train_images if split == "train" else self.val_images
        generator = torch.Generator().manual_seed(int(split == "val"))
        labels = torch.arange(images) % self.num_classes
        shape = (images, preprocessing.channels, preprocessing.size, preprocessing.size)
        noise = torch.randint(0, 128, shape, generator=generator, dtype=torch.uint8)
        levels = (labels * (127 // max(1, self.num_classes - 1))).to(torch.uint8)
        names = [str(c) for c in range(self.num_classes)]
        return MemoryDataset(noise + levels[:, None, None, None], labels, names, "synthetic/{}".format)


def stored_images(source: Path, images: Path | None = None) -> FolderConfig | CsvConfig:
    """Return the data set of a folder, or of a file of labels whose paths are relative to ``images``.

    It holds images out where the source has no validation split: then the training split is all there is.
    """
    if source.is_file():
        labels = CsvConfig(file=str(source), root=str(images or ""))
        spreadsheet = integration("spreadsheet", package="csv", asked=str(source))
        return (
            labels
            if spreadsheet.has_val(source, images or source.parent)
            else replace(labels, val_fraction=0.5)
        )
    if images is not None:
        raise UserError(f"--images {images} belongs to a file of labels, and {source} is none")
    folder = FolderConfig(root=str(source))
    alone = not any((source / name).is_dir() for name in FOLDERS["val"])
    return replace(folder, val_fraction=0.5) if alone else folder


def data_config(values: Any) -> DataConfig:
    """Return the configuration of the data set that ``values["name"]`` names, whoever declared it.

    Raises:
        UserError: if there is none of this name.
        pydantic.ValidationError: for a key it does not have, or a value of another type.
    """
    if isinstance(values, DataConfig):
        return values
    name = values.get("name") if isinstance(values, Mapping) else None
    if not isinstance(name, str) or name not in DATA_SETS:
        raise UserError(f'data.name="{name}": there is no such data set{did_you_mean(str(name), DATA_SETS)}')
    return TypeAdapter(DATA_SETS[name]).validate_python(values)


AnyDataConfig = Annotated[DataConfig, PlainValidator(data_config)]
"""A data set's configuration, for pydantic."""
