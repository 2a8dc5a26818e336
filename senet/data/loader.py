"""Which samples come when: a seeded order with exact resume in training, every sample once in evaluation."""

from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from torch.utils.data import DataLoader

from senet.data.datasets import BadImage, Batch, FileDataset, Key, MemoryDataset, bad_image_error, collate
from senet.data.streams import stream


def epoch_order(samples: int, seed: int, epoch: int) -> torch.Tensor:
    """Return the permutation (samples,) of one epoch: the same on every rank and after every resume."""
    return torch.randperm(samples, generator=stream(seed, "order", epoch))


class _Batches:
    """The loop over DataLoader batches that both loaders share."""

    def __init__(self, dataset: FileDataset | MemoryDataset, workers: int, pin_memory: bool) -> None:
        self.dataset = dataset
        in_memory = isinstance(dataset, MemoryDataset)
        workers = 0 if in_memory else workers
        options: dict[str, Any] = {"persistent_workers": workers > 0}
        if workers > 0:
            options["prefetch_factor"] = 4
        self._loader: DataLoader[Any] = DataLoader(
            dataset,
            batch_sampler=_Keys(self),
            collate_fn=cast(Callable[..., Any], _as_is if in_memory else collate),
            num_workers=workers,
            pin_memory=pin_memory,
            **options,
        )

    def keys(self) -> Iterator[list[Key]]:
        """Yield the keys of each batch of this rank."""
        raise NotImplementedError

    def batches(self) -> Iterator[Batch]:
        """Yield the batches; an unreadable image raises the UserError that names it."""
        for batch in self._loader:
            if isinstance(batch, BadImage):
                raise bad_image_error(batch)
            yield batch


class _Keys:
    """Lets a persistent DataLoader ask its owner for the keys anew at every epoch."""

    def __init__(self, owner: _Batches) -> None:
        self.owner = owner

    def __iter__(self) -> Iterator[list[Key]]:
        return self.owner.keys()


def _as_is(batch: Batch) -> Batch:
    return batch


class TrainLoader(_Batches):
    """Shuffled batches of one rank, with a state: the epoch and the samples consumed by all ranks together.

    A global batch is ``batch_size * world_size`` consecutive samples of the epoch's order; rank k takes every
    ``world_size``-th of them from the k-th on, so W ranks of batch b see what one process of batch W * b
    sees. The incomplete global batch at the end of an epoch is left out (other samples each epoch).

    The state counts samples, not batches, so a run may resume with another number of devices or workers.
    """

    def __init__(
        self,
        dataset: FileDataset | MemoryDataset,
        batch_size: int,
        *,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        self.batch_size, self.seed, self.rank, self.world_size = batch_size, seed, rank, world_size
        self.epoch = 0
        self.consumed = 0
        self.repeat = 0  # if set: every epoch is the first so many batches of epoch 0
        self._batches_before = 0  # batches of this epoch that were yielded before the resume
        self._consumed_before = 0
        super().__init__(dataset, workers, pin_memory)

    @property
    def global_batch(self) -> int:
        """Samples per step over all ranks."""
        return self.batch_size * self.world_size

    @property
    def sampler(self) -> "TrainLoader":
        """Lightning calls ``loader.sampler.set_epoch`` before every epoch."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Start ``epoch`` from its first sample, unless the state already stands within it."""
        if epoch != self.epoch:
            self.epoch, self.consumed = epoch, 0
            self._batches_before = self._consumed_before = 0

    def __len__(self) -> int:
        """Batches of the current epoch, those before a resume included, as Lightning counts them."""
        batches = self._batches_before + (len(self.dataset) - self._consumed_before) // self.global_batch
        return min(batches, self.repeat) if self.repeat else batches

    def keys(self) -> Iterator[list[Key]]:
        """Yield this rank's share of each remaining global batch."""
        order = epoch_order(len(self.dataset), self.seed, 0 if self.repeat else self.epoch)
        epoch, size = self.epoch, self.global_batch
        for start in range(self.consumed, len(order) - size + 1, size):
            share = order[start + self.rank : start + size : self.world_size]
            yield [(epoch, int(index)) for index in share]

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.batches():
            # Counted before the step: a checkpoint written after the step is right.
            self.consumed += self.global_batch
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return the position: plain integers, equal on all ranks."""
        batches = self._batches_before + (self.consumed - self._consumed_before) // self.global_batch
        return {"epoch": self.epoch, "consumed": self.consumed, "batches": batches}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue at a position."""
        self.epoch = state["epoch"]
        self.consumed = self._consumed_before = state["consumed"]
        self._batches_before = state["batches"]


class EvalLoader(_Batches):
    """Every sample exactly once over all ranks, unpadded: rank k takes samples k, k + W, k + 2W, ..."""

    def __init__(
        self,
        dataset: FileDataset | MemoryDataset,
        batch_size: int,
        *,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        self.batch_size, self.rank, self.world_size = batch_size, rank, world_size
        super().__init__(dataset, workers, pin_memory)

    def __len__(self) -> int:
        mine = len(range(self.rank, len(self.dataset), self.world_size))
        return -(-mine // self.batch_size)

    def keys(self) -> Iterator[list[Key]]:
        """Yield this rank's samples in order."""
        mine = range(self.rank, len(self.dataset), self.world_size)
        for start in range(0, len(mine), self.batch_size):
            yield [(0, index) for index in mine[start : start + self.batch_size]]

    def __iter__(self) -> Iterator[Batch]:
        return self.batches()
