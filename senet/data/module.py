"""The Lightning DataModule of every data set: opens the splits and builds the loaders."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor

from senet.data.augment import ImageAugmentation
from senet.data.config import AugmentConfig, DataConfig, FilesConfig, SplitName
from senet.data.datasets import BadImages, Batch, FileDataset, MemoryDataset, load_to_memory
from senet.data.files import Records
from senet.data.files.decoders import MAX_PIXELS, build_decoder, describe_decoder
from senet.data.loader import EvalLoader, TrainLoader
from senet.data.preprocessing import Preprocessing
from senet.data.sampling import EpochOrder, EpochSizes, hold_out, named, read_weights, subset
from senet.data.timings import Timings
from senet.data.tools import cores
from senet.errors import UserError
from senet.plugins import integration


class ImageData(LightningDataModule):
    """Training and validation data of one run.

    Args:
        config: which data, batch size, preprocessing.
        augment: training augmentation; ``None`` for evaluation only, where no training split is needed.
        seed: of the run; order and augmentation are its named streams.
        preprocessing: overrides the configuration's, e.g. with what a checkpoint was trained for.
        classes: class names the validation split must fit, e.g. those of a checkpoint.
        held_out: names of the images that the run held out when it began, where it did.

    Attributes:
        train: the data set that is trained on; None for evaluation only.
        order: which samples of it each epoch draws.
        val: the data set that is evaluated: with folds the training images.
        val_ids: the places of the images in it that are evaluated, int64 (N,).
        classes: their class names.
        bad_images: images that could not be read in training; give it a file before training starts.
        eval_bad_images: those of the current evaluation on this rank.
        timings: who waited for whom in training.
        left_out: how many files in the folders are no images, by kind.
    """

    def __init__(
        self,
        config: DataConfig,
        augment: AugmentConfig | None,
        seed: int,
        preprocessing: Preprocessing | None = None,
        classes: list[str] | None = None,
        held_out: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        if config.batch_size < 1 or (config.eval_batch_size or 1) < 1:
            raise UserError(f"data.batch_size={config.batch_size} must be 1 or more")
        self.config, self.augment, self.seed = config, augment, seed
        self.preprocessing = preprocessing or config.preprocessing
        self.train: FileDataset | MemoryDataset | None = None
        self.order: EpochOrder | None = None
        self.left_out: Counter[str] = Counter()
        self._held_out = held_out
        if augment is not None:
            self.train = self._open("train", augment, None)
            self.order = self._order(self.train)
            classes = self.train.classes
            if isinstance(self.train, MemoryDataset):
                augment.check_in_memory()
        if self.train is not None and config.holds_out:  # the same images, opened once
            self.val = self.train.for_evaluation()
        else:
            self.val = self._open("train" if config.holds_out else "val", None, classes)
        self.classes = self.val.classes
        everything = torch.arange(len(self.val))
        self.val_ids = self._parts(self.val)[1] if config.holds_out else everything
        self.bad_images, self.eval_bad_images, self.timings = BadImages(), BadImages(), Timings()
        self.overfit_batches = 0
        """Train on the first so many batches of the first epoch's order, again and again; 0 for all."""
        self._loaders: list[TrainLoader | EvalLoader] = []

    def _open(
        self, split: SplitName, augment: AugmentConfig | None, classes: list[str] | None
    ) -> FileDataset | MemoryDataset:
        config, preprocessing = self.config, self.preprocessing
        opened = config.open(split, preprocessing, classes)
        if isinstance(opened, MemoryDataset):
            return opened.fit(preprocessing, config.name)
        assert isinstance(opened, Records)
        self.left_out.update(opened.left_out)
        if not isinstance(config, FilesConfig) or config.keeps_in_memory:
            return load_to_memory(opened, preprocessing, getattr(config, "max_pixels", MAX_PIXELS))
        decoder = (
            None
            if config.decoder == "gpu"
            else build_decoder(config.decoder, preprocessing.colour, config.max_pixels)
        )
        transform = ImageAugmentation(augment, preprocessing) if augment else None
        sizes = EpochSizes(config.sampling.sizes if augment else (), preprocessing.size)
        return FileDataset(opened, preprocessing, decoder, transform, self.seed, sizes)

    def _parts(self, train: FileDataset | MemoryDataset) -> tuple[Tensor, Tensor]:
        """Return the ids of the training split that are trained on, and those held out."""
        if self._held_out is not None:
            return named(set(self._held_out), [train.name_of(i) for i in range(len(train))])
        return hold_out(self.config, train.labels)

    @property
    def held_out(self) -> list[str]:
        """The names of the training images that are held out for validation."""
        return [self.val.name_of(i) for i in self.val_ids.tolist()] if self.config.holds_out else []

    def _order(self, train: FileDataset | MemoryDataset) -> EpochOrder:
        """Return the order of the samples that are trained on."""
        sampling, labels = self.config.sampling, train.labels
        if sampling.sizes and isinstance(train, MemoryDataset):
            raise UserError("data.sampling.sizes works on images from files, not on images held in memory")
        kept, _ = self._parts(train)
        weights = None
        if sampling.weights is not None:
            names = [train.name_of(i).partition("/")[2] for i in range(len(labels))]
            weights = read_weights(Path(sampling.weights), labels, train.classes, names)
        return EpochOrder(sampling, subset(sampling, labels, kept), labels, self.seed, weights)

    @property
    def train_size(self) -> int:
        """Samples of a training epoch."""
        return len(self.order) if self.order else 0

    @property
    def val_size(self) -> int:
        """Number of validation images."""
        return len(self.val_ids)

    @property
    def splits(self) -> dict[str, FileDataset | MemoryDataset]:
        """The data sets that were opened."""
        return {"train": self.train, "val": self.val} if self.train is not None else {"val": self.val}

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What a run must find again when it is resumed: class names, and by split images, listing and manifest."""
        return {
            "classes": list(self.classes),
            "images": {name: len(split) for name, split in self.splits.items()},
            "listing": {name: split.listing() for name, split in self.splits.items()},
            "manifest": self.manifest_id,
        }

    def compare(self, before: Mapping[str, Any]) -> None:
        """Refuse other data than ``before``, the ``facts`` of the run that is resumed.

        Raises:
            UserError: naming the first difference.
        """
        for what in self._differences(before):
            raise UserError(
                f"the data are not those that the run was trained on: {what}; give it the data it had "
                "(data.root=DIR), or start a new run from its weights with model.weights=RUN"
            )

    def _differences(self, before: Mapping[str, Any]) -> Iterator[str]:
        now, then = self.facts, before.get("classes", self.classes)
        counts = f"({len(then)} classes then, {len(self.classes)} now)"
        for place, (old, new) in enumerate(zip_longest(then, self.classes, fillvalue="none"), 1):
            if old != new:
                yield f"class {place} was {old} and is {new} {counts}"
        for split, count in before.get("images", {}).items():
            where = {"train": "training", "val": "validation"}[split]
            if now["images"][split] != count:
                yield f"there were {count} {where} images and are {now['images'][split]}"
            if now["listing"][split] != before["listing"][split]:
                yield f"other {where} images lie there, by their names or sizes"
            if _contents_differ(now["manifest"][split], before["manifest"][split]):
                yield f"the contents of the {where} images differ"

    @cached_property
    def manifest_id(self) -> dict[str, str]:
        """What identifies the images of each split.

        "content:..." is a hash of every file, from ``senet check``, ``senet pack`` or the pixels in memory;
        "names:..." only of the file names, where the folder has not been checked.
        """
        return {name: split.identity() for name, split in self.splits.items()}

    @property
    def decoder(self) -> str:
        """What decodes the images, for people."""
        if isinstance(self.val, MemoryDataset) or not isinstance(self.config, FilesConfig):
            return "in memory"
        return describe_decoder(self.config.decoder)

    @property
    def workers(self) -> int:
        """Processes that decode on this rank."""
        if isinstance(self.val, MemoryDataset):
            return 0
        return cores() if self.config.workers is None else self.config.workers

    def _options(self, dataset: FileDataset | MemoryDataset) -> dict[str, Any]:
        """Return what both loaders are told."""
        trainer = self.trainer
        device = trainer.strategy.root_device if trainer else torch.device("cpu")
        options: dict[str, Any] = {
            "rank": trainer.global_rank if trainer else 0,
            "world_size": trainer.world_size if trainer else 1,
            "workers": self.workers,
            "pin_memory": device.type == "cuda",
        }
        if isinstance(dataset, FileDataset) and dataset.decoder is None:
            if device.type != "cuda":
                raise UserError(
                    f"data.decoder=gpu needs a CUDA device, not {device.type}: use data.decoder=fast"
                )
            nvjpeg = integration("nvjpeg", package="torchcodec", asked="data.decoder=gpu", extra="fast")
            limit = getattr(self.config, "max_pixels", MAX_PIXELS)
            options["device_decoder"] = nvjpeg.DeviceDecoder(dataset, device, limit)
        return options

    def train_dataloader(self) -> TrainLoader:
        """Return the (one) training loader of this rank."""
        assert self.train is not None
        loader = TrainLoader(
            self.train,
            self.config.batch_size,
            seed=self.seed,
            order=self.order,
            on_bad_image=getattr(self.config, "on_bad_image", "fail"),
            bad_images=self.bad_images,
            **self._options(self.train),
        )
        loader.timings = self.timings
        self.timings.cuda = loader.pin_memory
        loader.repeat = self.overfit_batches
        if len(loader) == 0:
            raise UserError(
                f"{self.train_size} training images do not fill one global batch of {loader.global_batch}: "
                "lower data.batch_size or trainer.devices"
            )
        self._loaders.append(loader)
        return loader

    def val_dataloader(self) -> EvalLoader:
        """Return the validation loader of this rank."""
        loader = EvalLoader(
            self.val,
            self.config.eval_batch_size or self.config.batch_size,
            ids=self.val_ids,
            on_bad_image=getattr(self.config, "eval_on_bad_image", "fail"),
            bad_images=self.eval_bad_images,
            **self._options(self.val),
        )
        self._loaders.append(loader)
        return loader

    def close(self) -> None:
        """End the data workers of all loaders."""
        for loader in self._loaders:
            loader.close()

    def few_validation_images(self, count: int) -> EvalLoader:
        """Return a loader of ``count`` validation images, spread evenly over all, in this process alone."""
        chosen = torch.linspace(0, self.val_size - 1, min(count, self.val_size), dtype=torch.float64).long()
        alone = {"rank": 0, "world_size": 1, "workers": 0, "pin_memory": False}
        batch = self.config.eval_batch_size or self.config.batch_size
        return EvalLoader(self.val, batch, ids=self.val_ids[chosen], **self._options(self.val) | alone)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Move a batch, and measure it in training."""
        start = time.perf_counter()
        moved: Batch = super().transfer_batch_to_device(batch, device, dataloader_idx)
        if self.trainer is not None and self.trainer.training:
            self.timings.stages["copy"] += time.perf_counter() - start
        return moved


def _contents_differ(now: str, then: str) -> bool:
    """Whether two ids of manifests are both of contents, and not the same; a folder may be checked any time."""
    return now != then and now.startswith("content:") and then.startswith("content:")
