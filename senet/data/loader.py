"""Which samples come when: a seeded order with exact resume in training, every sample once in evaluation."""

import weakref
from collections.abc import Callable, Iterator
from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from senet.data.datasets import (
    Batch,
    Fetched,
    FileDataset,
    Key,
    MemoryDataset,
    bad_image_error,
    collate,
    keep,
)
from senet.data.inputs import NUMBERS
from senet.data.ledger import Ledger
from senet.data.ring import Ring
from senet.data.sampling import EpochOrder, SamplingConfig
from senet.data.streams import stream_seed, uniform
from senet.data.timings import Timings
from senet.errors import UserError

PREFETCH = 2
OnBadImage = Literal["fail", "skip", "count"]
Selection = tuple[int, Tensor, Tensor]
"""(epoch, ids, draws) of one batch."""


class _Batches:
    """The loop over batches that both loaders share.

    Args:
        dataset: where the samples come from.
        batch_size: samples of a batch, at most.
        workers: processes that decode; data in memory needs none.
        pin_memory: page-locked batches, for CUDA.
        on_bad_image: "fail" raises for an unreadable image; anything else leaves it out and enters it in
            ``ledger``.
        ledger: of unreadable images.
        device_decoder: decodes on the device what the data set hands out undecoded.

    Attributes:
        timings: who waited for whom.
    """

    def __init__(
        self,
        dataset: FileDataset | MemoryDataset,
        batch_size: int,
        workers: int = 0,
        pin_memory: bool = False,
        on_bad_image: OnBadImage = "fail",
        ledger: Ledger | None = None,
        device_decoder: Callable[[Any], Any] | None = None,
    ) -> None:
        self.dataset, self.batch_size = dataset, batch_size
        self.workers, self.pin_memory = workers, pin_memory
        self.on_bad_image, self.device_decoder = on_bad_image, device_decoder
        self.ledger = ledger if ledger is not None else Ledger()
        self.timings = Timings()
        self._loader: DataLoader[Any] | None = None
        self._ring: Ring | None = None

    def selections(self) -> Iterator[Selection]:
        """Yield what each batch of this rank is made of."""
        raise NotImplementedError

    def batches(self) -> Iterator[Batch | None]:
        """Yield the batches, None where none of its images could be read.

        Raises:
            UserError: naming an unreadable image, unless those are left out.
        """
        fetched = self._from_memory() if isinstance(self.dataset, MemoryDataset) else self._from_files()
        for batch, bad, seconds in self.timings.timed(fetched):
            for image in bad:
                if image.mistake or self.on_bad_image == "fail":
                    raise bad_image_error(image)
            self.ledger.add(bad)
            self.timings.add(len(batch.labels) if batch else 0, seconds)
            yield batch

    def _from_memory(self) -> Iterator[Fetched]:
        assert isinstance(self.dataset, MemoryDataset)
        for _, ids, draws in self.selections():
            batch = self.dataset.fetch(ids, draws)
            if self.pin_memory:
                batch = batch._replace(images=batch.images.pin_memory())
            yield Fetched(batch, [], (0.0, 0.0, 0.0))

    def _from_files(self) -> Iterator[Fetched]:
        dataset = cast(FileDataset, self.dataset)
        if self._loader is None:
            how: dict[str, Any] = {}
            if self.workers:
                how = {"num_workers": self.workers, "persistent_workers": True, "prefetch_factor": PREFETCH}
            if self.device_decoder is None and self.workers:
                self._ring = Ring(self.workers, PREFETCH, self.batch_size * dataset.bytes_per_image)
            collation = keep if self.device_decoder else self._ring.put if self._ring else collate
            self._loader = DataLoader(
                dataset, batch_sampler=_Keys(self), collate_fn=cast(Callable[..., Any], collation), **how
            )
        for fetched in self._loader:
            if self.device_decoder:
                yield collate(self.device_decoder(fetched))
            else:
                yield self._ring.take(fetched, self.pin_memory) if self._ring else fetched


class _Keys:
    """Lets a persistent DataLoader ask its owner for the keys anew at every epoch."""

    def __init__(self, owner: _Batches) -> None:
        # No cycle: workers end with their loader, not when the collector happens to run.
        self.owner: _Batches = weakref.proxy(owner)

    def __iter__(self) -> Iterator[list[Key]]:
        for epoch, ids, draws in self.owner.selections():
            yield [Key(epoch, *pair) for pair in zip(ids.tolist(), draws.tolist(), strict=True)]


class TrainLoader(_Batches):
    """Seeded batches of one rank, with a state: the epoch and the samples consumed by all ranks together.

    A global batch is ``batch_size * world_size`` consecutive samples of the epoch's order; rank k takes every
    ``world_size``-th of them from the k-th on, so W ranks of batch b see what one process of batch W * b
    sees. The incomplete global batch at the end of an epoch is left out (other samples each epoch).

    The state counts samples, not batches, so a run may resume with another number of devices or workers.

    With ``on_bad_image="skip"`` a batch lacks its unreadable images and is that much smaller. All ranks still
    take the same number of steps; each rank's mean loss weighs the same, so the images beside a missing one
    weigh slightly more. A batch with no readable image at all is an error.

    Args:
        dataset: where the samples come from.
        batch_size: samples per rank and step.
        seed: of the run.
        order: ids of each epoch; by default a permutation of all samples.
        rank: of this process.
        world_size: number of processes.
        options: of the loop: workers, pin_memory, on_bad_image, ledger, device_decoder.
    """

    def __init__(
        self,
        dataset: FileDataset | MemoryDataset,
        batch_size: int,
        *,
        seed: int,
        order: EpochOrder | None = None,
        rank: int = 0,
        world_size: int = 1,
        **options: Any,
    ) -> None:
        self.rank, self.world_size, self.seed = rank, world_size, seed
        everything = torch.arange(len(dataset))
        self.order = order or EpochOrder(SamplingConfig(), everything, everything, seed)
        self.epoch = 0
        self.consumed = 0
        self.repeat = 0  # if set: every epoch is the first so many batches of epoch 0
        self._batches_before = 0  # batches of this epoch that were yielded before the resume
        self._consumed_before = 0
        super().__init__(dataset, batch_size, **options)

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
        batches = self._batches_before + (len(self.order) - self._consumed_before) // self.global_batch
        return min(batches, self.repeat) if self.repeat else batches

    def selections(self) -> Iterator[Selection]:
        """Yield this rank's share of each remaining global batch."""
        ids, draws = self.order(0 if self.repeat else self.epoch)
        epoch, size = self.epoch, self.global_batch
        for start in range(self.consumed, len(ids) - size + 1, size):
            share = slice(start + self.rank, start + size, self.world_size)
            yield epoch, ids[share], draws[share]

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.batches():
            if batch is None:
                bad = self.ledger.rows[-1]
                raise UserError(
                    f"none of the {self.batch_size} images of a batch could be read, the last being {bad.path} "
                    f"({bad.reason}): on_bad_image=skip is for single files"
                )
            # Counted before the step: a checkpoint written after the step is right.
            self.consumed += self.global_batch
            seed = stream_seed(self.seed, "batch", self.epoch)
            yield batch._replace(numbers=uniform(seed, batch.ids, batch.draws, NUMBERS))

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
    """Every sample exactly once over all ranks, unpadded: rank k takes samples k, k + W, k + 2W, ...

    With ``on_bad_image="count"`` unreadable images are left out and stand in ``ledger``: whoever evaluates must
    count them.

    Args:
        dataset: where the samples come from.
        batch_size: samples per rank and step.
        ids: int64 (n,), the samples to evaluate; by default all.
        rank: of this process.
        world_size: number of processes.
        options: of the loop: workers, pin_memory, on_bad_image, ledger, device_decoder.
    """

    def __init__(
        self,
        dataset: FileDataset | MemoryDataset,
        batch_size: int,
        *,
        ids: Tensor | None = None,
        rank: int = 0,
        world_size: int = 1,
        **options: Any,
    ) -> None:
        self.mine = (torch.arange(len(dataset)) if ids is None else ids)[rank::world_size]
        super().__init__(dataset, batch_size, **options)

    def __len__(self) -> int:
        return -(-len(self.mine) // self.batch_size)

    def selections(self) -> Iterator[Selection]:
        """Yield this rank's samples in order."""
        for ids in torch.split(self.mine, self.batch_size) if len(self.mine) else ():
            yield 0, ids, torch.zeros_like(ids)

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.batches():
            if batch is not None:
                yield batch
