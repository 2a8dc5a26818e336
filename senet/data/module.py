"""The Lightning DataModule of every data set: builds the splits, the loaders, and the device-side steps."""

import os
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningDataModule

from senet.data.augment import AugmentConfig, BatchAugmentation, ImageAugmentation
from senet.data.config import AnyDataConfig, CifarConfig, DigitsConfig, FolderConfig, SyntheticConfig
from senet.data.datasets import (
    Batch,
    FileDataset,
    MemoryDataset,
    Split,
    cifar,
    digits,
    load_to_memory,
    synthetic,
)
from senet.data.folder import find_split, scan
from senet.data.loader import EvalLoader, TrainLoader
from senet.data.preprocessing import Preprocessing
from senet.errors import UserError

SPLITS = {"train": ("train",), "val": ("val", "test")}


class ImageData(LightningDataModule):
    """Training and validation data of one run.

    Args:
        config: which data, batch size, preprocessing.
        augment: training augmentation; ``None`` for evaluation only, where no training split is needed.
        seed: of the run; order and augmentation are its named streams.
        preprocessing: overrides the configuration's, e.g. with what a checkpoint was trained for.
        classes: class names the validation split must fit, e.g. those of a checkpoint.
    """

    def __init__(
        self,
        config: AnyDataConfig,
        augment: AugmentConfig | None,
        seed: int,
        preprocessing: Preprocessing | None = None,
        classes: list[str] | None = None,
    ) -> None:
        super().__init__()
        if config.batch_size < 1 or (config.eval_batch_size or 1) < 1:
            raise UserError(f"data.batch_size={config.batch_size} must be 1 or more")
        self.config, self.seed = config, seed
        self.preprocessing = preprocessing or config.preprocessing
        self.train: Split | None = None
        self._augment_batch: BatchAugmentation | None = None
        if augment is not None:
            self.train = self._build("train", augment, None)
            classes = self.train.classes
            if isinstance(self.train.dataset, MemoryDataset):
                self._augment_batch = BatchAugmentation(augment, len(self.train.dataset), seed)
        self.val = self._build("val", None, classes)
        self.classes = self.val.classes
        self.overfit_batches = 0
        """Train on the first so many batches of the first epoch's order, again and again; 0 for all."""

    def _build(self, split: str, augment: AugmentConfig | None, classes: list[str] | None) -> Split:
        train = split == "train"
        config, pre = self.config, self.preprocessing
        if isinstance(config, FolderConfig):
            if not config.root:
                raise UserError("data.root is not set: name the folder that holds train/ and val/")
            return self._folder(Path(config.root), split, augment, classes, config.keeps_in_memory)
        if isinstance(config, CifarConfig) and (Path(config.root) / "train").is_dir():
            return self._folder(Path(config.root), split, augment, classes, in_memory=True)
        if isinstance(config, DigitsConfig):
            built = digits(train)
        elif isinstance(config, CifarConfig):
            built = cifar(config.name, Path(config.root), train, config.download)
        else:
            assert isinstance(config, SyntheticConfig)
            images = config.train_images if train else config.val_images
            built = synthetic(images, config.num_classes, pre, seed=int(not train))
        assert isinstance(built.dataset, MemoryDataset)
        return built._replace(dataset=_fit(built.dataset, pre, config.name))

    def _folder(
        self,
        root: Path,
        split: str,
        augment: AugmentConfig | None,
        classes: list[str] | None,
        in_memory: bool,
    ) -> Split:
        tree = scan(find_split(root, SPLITS[split]), classes)
        dataset: FileDataset | MemoryDataset
        if in_memory:
            dataset = load_to_memory(tree, self.preprocessing)
        else:
            transform = ImageAugmentation(augment, self.preprocessing) if augment else None
            dataset = FileDataset(tree, self.preprocessing, transform, self.seed)
        return Split(dataset, tree.classes, lambda index: f"{tree.root.name}/{tree.files[index]}")

    @property
    def train_size(self) -> int:
        """Number of training images."""
        return len(self.train.dataset) if self.train else 0

    @property
    def val_size(self) -> int:
        """Number of validation images."""
        return len(self.val.dataset)

    def _placement(self) -> dict[str, Any]:
        trainer = self.trainer
        world = trainer.world_size if trainer else 1
        workers = self.config.workers
        if workers is None:
            workers = max(1, len(os.sched_getaffinity(0)) // world) if hasattr(os, "sched_getaffinity") else 2
        return {
            "rank": trainer.global_rank if trainer else 0,
            "world_size": world,
            "workers": workers,
            "pin_memory": trainer is not None and trainer.strategy.root_device.type == "cuda",
        }

    def train_dataloader(self) -> TrainLoader:
        """Return the (one) training loader of this rank."""
        assert self.train is not None
        loader = TrainLoader(self.train.dataset, self.config.batch_size, seed=self.seed, **self._placement())
        loader.repeat = self.overfit_batches
        if len(loader) == 0:
            raise UserError(
                f"{self.train_size} training images do not fill one global batch of {loader.global_batch}: "
                "lower data.batch_size or trainer.devices"
            )
        return loader

    def val_dataloader(self) -> EvalLoader:
        """Return the validation loader of this rank."""
        size = self.config.eval_batch_size or self.config.batch_size
        return EvalLoader(self.val.dataset, size, **self._placement())

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Augment in-memory training batches, then normalise: both on the device."""
        images = batch.images
        if self._augment_batch is not None and self.trainer is not None and self.trainer.training:
            images = self._augment_batch(images, batch.ids, batch.epoch)
        return batch._replace(images=self.preprocessing.normalise(images))


def _fit(dataset: MemoryDataset, preprocessing: Preprocessing, name: str) -> MemoryDataset:
    """Bring the images in memory to the preprocessing's size and colour, once."""
    images = dataset.images
    if images.shape[1] != preprocessing.channels:
        if images.shape[1] != 1:
            raise UserError(f"{name} has colour images: data.preprocessing.colour must be RGB")
        images = images.expand(-1, preprocessing.channels, -1, -1)
    if images.shape[-1] != preprocessing.size or preprocessing.resize is not None:
        images = torch.stack([preprocessing.evaluate(image) for image in images])
    return MemoryDataset(images.contiguous(), dataset.labels)
