"""The Lightning DataModule of every data set: builds the splits and the loaders."""

import time
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningDataModule

from senet.data.augment import AugmentConfig
from senet.data.config import AnyDataConfig, FilesConfig
from senet.data.datasets import Batch, FileDataset, MemoryDataset
from senet.data.decoders import describe_decoder
from senet.data.ledger import Ledger
from senet.data.loader import EvalLoader, TrainLoader
from senet.data.parallel import cores
from senet.data.preprocessing import Preprocessing
from senet.data.sampling import EpochOrder, read_weights
from senet.data.splits import Builder, Split
from senet.data.timings import Timings
from senet.errors import UserError


class ImageData(LightningDataModule):
    """Training and validation data of one run.

    Args:
        config: which data, batch size, preprocessing.
        augment: training augmentation; ``None`` for evaluation only, where no training split is needed.
        seed: of the run; order and augmentation are its named streams.
        preprocessing: overrides the configuration's, e.g. with what a checkpoint was trained for.
        classes: class names the validation split must fit, e.g. those of a checkpoint.

    Attributes:
        ledger: images that could not be read in training; give it a file before training starts.
        eval_ledger: those of the current evaluation on this rank.
        timings: who waited for whom in training.
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
        self.config, self.augment, self.seed = config, augment, seed
        self.preprocessing = preprocessing or config.preprocessing
        self.train: Split | None = None
        self.order: EpochOrder | None = None
        builder = Builder(config, self.preprocessing, augment, seed)
        if augment is not None:
            self.train = builder.train()
            self.order = self._order(self.train)
            classes = self.train.classes
            if isinstance(self.train.dataset, MemoryDataset):
                augment.check_in_memory()
        self.val = builder.val(classes)
        self.classes = self.val.classes
        self.ledger, self.eval_ledger, self.timings = Ledger(), Ledger(), Timings()
        self.overfit_batches = 0
        """Train on the first so many batches of the first epoch's order, again and again; 0 for all."""

    def _order(self, train: Split) -> EpochOrder:
        sampling, labels = self.config.sampling, train.labels
        weights = None
        if sampling.weights is not None:
            folder = len(train.name_of(0).split("/")[0]) + 1
            names = [train.name_of(i)[folder:] for i in range(len(labels))]
            weights = read_weights(Path(sampling.weights), labels, train.classes, names.__getitem__)
        return EpochOrder(sampling, train.ids, labels, self.seed, weights)

    @property
    def train_size(self) -> int:
        """Samples of a training epoch."""
        return len(self.order) if self.order else 0

    @property
    def val_size(self) -> int:
        """Number of validation images."""
        return len(self.val.ids)

    @property
    def manifest_id(self) -> dict[str, str]:
        """What identifies the images of each split.

        "content:..." is a hash of every file, from ``senet check``, ``senet pack`` or the pixels in memory;
        "names:..." only of the file names, where the folder has not been checked.
        """
        splits = {"train": self.train, "val": self.val}
        return {name: split.identity() for name, split in splits.items() if split is not None}

    @property
    def decoder(self) -> str:
        """What decodes the images, for people."""
        if isinstance(self.val.dataset, MemoryDataset) or not isinstance(self.config, FilesConfig):
            return "in memory"
        return describe_decoder(self.config.decoder)

    @property
    def workers(self) -> int:
        """Processes that decode on this rank."""
        if isinstance(self.val.dataset, MemoryDataset):
            return 0
        return cores() if self.config.workers is None else self.config.workers

    def _options(self, split: Split) -> dict[str, Any]:
        trainer = self.trainer
        device = trainer.strategy.root_device if trainer else torch.device("cpu")
        options: dict[str, Any] = {
            "rank": trainer.global_rank if trainer else 0,
            "world_size": trainer.world_size if trainer else 1,
            "workers": self.workers,
            "pin_memory": device.type == "cuda",
        }
        if isinstance(split.dataset, FileDataset) and split.dataset.decoder is None:
            from senet.data.device import DeviceDecoder

            if device.type != "cuda":
                raise UserError(
                    f"data.decoder=gpu needs a CUDA device, not {device.type}: use data.decoder=fast"
                )
            options["device_decoder"] = DeviceDecoder(split.dataset, device)
        return options

    def train_dataloader(self) -> TrainLoader:
        """Return the (one) training loader of this rank."""
        assert self.train is not None
        options = self._options(self.train)
        policy = self.config.on_bad_image if isinstance(self.config, FilesConfig) else "fail"
        loader = TrainLoader(
            self.train.dataset,
            self.config.batch_size,
            seed=self.seed,
            order=self.order,
            on_bad_image=policy,
            ledger=self.ledger,
            **options,
        )
        loader.timings = self.timings
        self.timings.cuda = options["pin_memory"]
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
        policy = self.config.eval_on_bad_image if isinstance(self.config, FilesConfig) else "fail"
        return EvalLoader(
            self.val.dataset,
            size,
            ids=self.val.ids,
            on_bad_image=policy,
            ledger=self.eval_ledger,
            **self._options(self.val),
        )

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Move a batch, and measure it in training."""
        start = time.perf_counter()
        moved: Batch = super().transfer_batch_to_device(batch, device, dataloader_idx)
        if self.trainer is not None and self.trainer.training:
            self.timings.stages["copy"] += time.perf_counter() - start
        return moved
