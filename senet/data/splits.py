"""From a data configuration to its splits: which images, of which classes, decoded how."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from senet.data.augment import AugmentConfig, ImageAugmentation
from senet.data.config import (
    AnyDataConfig,
    CifarConfig,
    DigitsConfig,
    FakeConfig,
    FilesConfig,
    FolderConfig,
    PackedConfig,
    SyntheticConfig,
)
from senet.data.datasets import FileDataset, MemoryDataset, load_to_memory
from senet.data.decoders import build_decoder
from senet.data.folder import ImageTree, find_split, scan
from senet.data.memory import cifar, digits, fit, synthetic
from senet.data.packed import PackedRecords
from senet.data.preprocessing import Preprocessing
from senet.data.records import names_id
from senet.data.sampling import EpochSizes, fold_parts, subset
from senet.errors import UserError

FOLDERS = {"train": ("train",), "val": ("val", "test")}


class Split(NamedTuple):
    """One split: the data set, its class names, each sample's name, the samples in use and its identity."""

    dataset: FileDataset | MemoryDataset
    classes: list[str]
    name_of: Callable[[int], str]
    ids: Tensor
    identity: Callable[[], str]

    @property
    def labels(self) -> Tensor:
        """Labels of all samples, int64 (N,)."""
        held = self.dataset
        return held.labels if isinstance(held, MemoryDataset) else held.records.labels


class Builder:
    """Builds the splits of one configuration.

    Args:
        config: which data.
        preprocessing: of the images.
        augment: of the training images.
        seed: of the run.
    """

    def __init__(
        self,
        config: AnyDataConfig,
        preprocessing: Preprocessing,
        augment: AugmentConfig | None,
        seed: int,
    ) -> None:
        self.config, self.preprocessing, self.augment, self.seed = config, preprocessing, augment, seed

    def train(self) -> Split:
        """Return the training split and the samples of it that are trained on."""
        split = self._build("train", self.augment, None)
        sampling = self.config.sampling
        if sampling.sizes and isinstance(split.dataset, MemoryDataset):
            raise UserError("data.sampling.sizes works on images from files, not on images held in memory")
        kept, _ = fold_parts(sampling, split.labels)
        return split._replace(ids=subset(sampling, split.labels, kept))

    def val(self, classes: list[str] | None) -> Split:
        """Return the validation split, or with folds the held-out part of the training split."""
        if self.config.sampling.folds is None:
            return self._build("val", None, classes)
        split = self._build("train", None, classes)
        _, held_out = fold_parts(self.config.sampling, split.labels)
        return split._replace(ids=held_out)

    def _build(self, split: str, augment: AugmentConfig | None, classes: list[str] | None) -> Split:
        config = self.config
        if isinstance(config, FakeConfig):
            from senet.data.fake import write_tree

            write_tree(config)
        if isinstance(config, FilesConfig):
            if not config.root:
                raise UserError("data.root is not set: name the folder that holds train/ and val/")
            return self._files(config, split, augment, classes)
        train = split == "train"
        if isinstance(config, CifarConfig):
            if (Path(config.root) / "train").is_dir():
                as_folder = FolderConfig(root=config.root, in_memory=True)
                return self._files(as_folder, split, augment, classes)
            found = cifar(config, train)
        elif isinstance(config, DigitsConfig):
            found = digits(train)
        else:
            assert isinstance(config, SyntheticConfig)
            found = synthetic(config, self.preprocessing, train)
        return in_memory(fit(found.dataset, self.preprocessing, config.name), found.classes, found.name_of)

    def _files(
        self, config: FilesConfig, split: str, augment: AugmentConfig | None, classes: list[str] | None
    ) -> Split:
        root = Path(config.root)
        records: ImageTree | PackedRecords
        if isinstance(config, PackedConfig):
            records = PackedRecords(config.root, split, config.cache)
        else:
            records = scan(find_split(root, FOLDERS[split]), classes)
        folder = split if isinstance(records, PackedRecords) else records.root.name

        def name_of(index: int) -> str:
            return f"{folder}/{records.name(index)}"

        if isinstance(config, FolderConfig) and config.keeps_in_memory:
            held = load_to_memory(
                records, self.preprocessing, build_decoder("fast", self.preprocessing.colour)
            )
            return in_memory(held, records.classes, name_of)
        on_device = config.decoder == "gpu"
        decoder = None if on_device else build_decoder(config.decoder, self.preprocessing.colour)
        transform = ImageAugmentation(augment, self.preprocessing) if augment else None
        sizes = EpochSizes(config.sampling.sizes if augment else (), self.preprocessing.size)
        dataset = FileDataset(records, self.preprocessing, decoder, transform, self.seed, sizes)

        def identity() -> str:
            return records.id if isinstance(records, PackedRecords) else tree_identity(root, records)

        return Split(dataset, records.classes, name_of, torch.arange(len(records)), identity)


def tree_identity(root: Path, tree: ImageTree) -> str:
    """Return the id of the last ``senet check`` of these very files, or else one of their names only."""
    names = names_id(tree.names, tree.labels)
    try:
        checked = json.loads((root / ".senet" / "check.json").read_text())
        if checked["splits"][tree.root.name]["names"] == names:
            return f"content:{checked['splits'][tree.root.name]['id']}"
    except (OSError, ValueError, KeyError):
        pass
    return f"names:{names}"


def in_memory(dataset: MemoryDataset, classes: list[str], name_of: Callable[[int], str]) -> Split:
    """Return a split held in memory; its identity is a hash of pixels and labels."""

    def identity() -> str:
        digest = hashlib.blake2b(digest_size=8)
        digest.update(dataset.images.contiguous().numpy().data)
        digest.update(dataset.labels.numpy().data)
        return f"content:{digest.hexdigest()}"

    return Split(dataset, classes, name_of, torch.arange(len(dataset)), identity)
