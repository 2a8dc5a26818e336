"""Which samples come when: a seeded order with exact resume in training, every sample once in evaluation."""

import os
import signal
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import active_children
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from senet.data.config import SamplingConfig
from senet.data.datasets import BadImages, Batch, FileDataset, MemoryDataset, Selection
from senet.data.inputs import NUMBERS
from senet.data.sampling import EpochOrder
from senet.data.streams import stream_seed, uniform
from senet.data.timings import Timings
from senet.errors import UserError

PREFETCH = 2
ASKING = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2}
"""Signals that ask a process to end, or a run to save."""
PATIENCE = 300.0
"""Seconds without a batch after which the workers hang."""
OnBadImage = Literal["fail", "skip", "count"]


class Ring(Dataset[Batch]):
    """A data set whose workers hand over their batches in memory that is used again and again.

    A DataLoader maps fresh shared memory for every batch, whose page faults cost both sides more than the copy that is
    made here. A worker is asked for its next batch when one of its batches is taken: it has at most ``prefetch`` under
    way, and with one place more none is written to before what lies there has been copied.

    Args:
        dataset: whose batches these are.
        workers: number of processes.
        prefetch: batches that each may have under way.
        size: bytes of the largest batch.

    Raises:
        UserError: if the machine or container has not so much shared memory.
    """

    def __init__(self, dataset: FileDataset, workers: int, prefetch: int, size: int) -> None:
        self.dataset = dataset
        total = workers * (prefetch + 1) * size
        try:
            places = torch.empty(workers, prefetch + 1, size, dtype=torch.uint8)
            self.places = places.share_memory_()  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            raise UserError(
                f"data.workers={workers} need {total / 2**20:,.0f} MiB of shared memory, which is not there: allow a "
                "container more (docker run --shm-size=8g, or --ipc=host), or lower data.workers or data.batch_size"
            ) from error
        self._batches = 0  # of this process

    def __getitem__(self, selection: Selection) -> Batch:
        """Return a batch in a worker, whose images are left here."""
        info = get_worker_info()
        assert info is not None
        place = self._batches % self.places.shape[1]
        self._batches += 1
        batch = self.dataset.fetch(selection, self.places[info.id, place])
        shape = batch.images.permute(0, 2, 3, 1).shape
        return batch._replace(images=torch.empty(0), handed=(info.id, place, shape))

    def take(self, batch: Batch, pin_memory: bool) -> Batch:
        """Return in the main process what a worker handed over, with images of its own."""
        worker, place, shape = batch.handed
        pixels = self.places[worker, place][: shape.numel()].view(shape)
        pixels = pixels.pin_memory() if pin_memory else pixels.clone()
        return batch._replace(images=pixels.permute(0, 3, 1, 2), handed=None)


class _Loader(DataLoader[Any]):
    def check_worker_number_rationality(self) -> None:
        """Say nothing of more workers than cores: a run may be evaluated on another machine than its own."""


class _Batches:
    """The loop over batches that both loaders share.

    Args:
        dataset: where the samples come from.
        batch_size: samples of a batch, at most.
        workers: processes that decode; data in memory needs none.
        pin_memory: page-locked batches, for CUDA.
        on_bad_image: "fail" raises for an unreadable image; anything else leaves it out and enters it in
            ``bad_images``.
        bad_images: where they are entered.
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
        bad_images: BadImages | None = None,
        device_decoder: Callable[[Batch], Batch] | None = None,
    ) -> None:
        self.dataset, self.batch_size = dataset, batch_size
        self.workers, self.pin_memory = workers, pin_memory
        self.on_bad_image, self.device_decoder = on_bad_image, device_decoder
        self.bad_images = BadImages() if bad_images is None else bad_images
        self.timings = Timings()
        self._loader: DataLoader[Any] | None = None
        self._ring: Ring | None = None
        self._awaited: deque[Tensor] = deque()  # ids of the batches that workers were asked for

    def selections(self) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Yield what each batch of this rank is made of: epoch, ids and draws, int64 (B,)."""
        raise NotImplementedError

    def batches(self) -> Iterator[Batch]:
        """Yield the batches, empty where none of its images could be read.

        Raises:
            UserError: naming an unreadable image, unless those are left out.
        """
        for batch in self.timings.timed(self._fetched()):
            for image in batch.bad:
                if image.mistake or self.on_bad_image == "fail":
                    raise image.error()
            self.bad_images.add(batch.bad)
            self.timings.add(len(batch.ids), batch.seconds)
            yield Batch(batch.images, batch.labels, batch.ids, batch.draws)

    def close(self) -> None:
        """End the workers now. Left to Python's collector, each would be waited for for seconds."""
        self._loader = self._ring = None

    def _fetched(self) -> Iterator[Batch]:
        if isinstance(self.dataset, MemoryDataset):
            for _, ids, draws in self.selections():
                batch = self.dataset.fetch(ids, draws)
                yield batch._replace(images=batch.images.pin_memory()) if self.pin_memory else batch
            return
        if self._loader is None:
            self._loader = self._start(self.dataset)
        with _kept_from_new_threads(ASKING):
            batches = iter(self._loader)
        while (fetched := self._next(batches)) is not None:
            decoded = self.device_decoder(fetched) if self.device_decoder else fetched
            yield self._ring.take(decoded, self.pin_memory) if self._ring else decoded

    def _next(self, batches: Iterator[tuple[Any, ...]]) -> Batch | None:
        """Return the next batch, ``None`` at the end.

        Raises:
            UserError: if the workers hang.
        """
        try:
            parts = next(batches, None)
        except RuntimeError as error:
            if "timed out" not in str(error):
                raise
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler would raise that they were killed
            for worker in active_children():  # else their end would be waited for
                worker.kill()
            names = ", ".join(self.dataset.name_of(int(index)) for index in self._awaited[0][:4])
            raise UserError(
                f"the data workers have not delivered a batch for {PATIENCE:.0f} s: one was stopped, or a file of the "
                f"batch {names}, ... lies on storage that hangs"
            ) from error
        if parts is None:
            return None
        self._awaited.popleft()
        return _as_tensors(parts)

    def _start(self, dataset: FileDataset) -> DataLoader[Any]:
        how: dict[str, Any] = {}
        if self.workers:
            how = {"num_workers": self.workers, "persistent_workers": True, "prefetch_factor": PREFETCH}
            how |= {"worker_init_fn": _obey_parent, "timeout": PATIENCE}
            if self.device_decoder is None:
                size = self.batch_size * dataset.bytes_per_image
                self._ring = Ring(dataset, self.workers, PREFETCH, size)
        # batch_size=None: the data set makes batches, a worker only passes them on.
        return _Loader(
            self._ring or dataset, batch_size=None, sampler=_Selections(self), collate_fn=_as_arrays, **how
        )


@contextmanager
def _kept_from_new_threads(numbers: set[signal.Signals]) -> Iterator[None]:
    """Start processes and threads that signals do not reach; this thread gets theirs at the end of the block.

    A logger may start threads in every fork, before the worker's own first line.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _obey_parent(worker: int) -> None:
    """Keep signals from a worker, but for SIGTERM of its parent: to stop in order, the run still needs its batches.

    A terminal signals the whole process group, SLURM every process of the job.
    """
    parent = os.getppid()
    os.setpgrp()
    signal.pthread_sigmask(signal.SIG_BLOCK, ASKING)  # where workers are no forks

    def wait() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
            pass
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


def _as_arrays(batch: Any) -> tuple[Any, ...]:
    """Return a batch as it leaves a worker: arrays go by value; a tensor's memory would be asked of the worker later.

    A worker that was stopped in between would never answer.
    """
    return tuple(part.numpy() if isinstance(part, Tensor) else part for part in batch)


def _as_tensors(parts: tuple[Any, ...]) -> Batch:
    return Batch._make(torch.from_numpy(part) if isinstance(part, np.ndarray) else part for part in parts)


class _Selections:
    """Lets a persistent DataLoader ask its owner for the selections anew at every epoch."""

    def __init__(self, owner: _Batches) -> None:
        # No cycle: workers end with their loader, not when the collector happens to run.
        self.owner: _Batches = weakref.proxy(owner)

    def __iter__(self) -> Iterator[Selection]:
        self.owner._awaited.clear()
        for epoch, ids, draws in self.owner.selections():
            self.owner._awaited.append(ids)
            yield epoch, ids.tolist(), draws.tolist()


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
        options: of the loop: workers, pin_memory, on_bad_image, bad_images, device_decoder.
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
        self.repeat = 0  # if set: every epoch is the first so many batches of epoch 0
        self.load_state_dict({"epoch": 0, "consumed": 0, "batches": 0})
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
            self.load_state_dict({"epoch": epoch, "consumed": 0, "batches": 0})

    def __len__(self) -> int:
        """Batches of the current epoch, those before a resume included, as Lightning counts them."""
        batches = self._batches_before + (len(self.order) - self._consumed_before) // self.global_batch
        return min(batches, self.repeat) if self.repeat else batches

    def selections(self) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Yield this rank's share of each remaining global batch."""
        ids, draws = self.order(0 if self.repeat else self.epoch)
        epoch, size = self.epoch, self.global_batch
        for start in range(self.consumed, len(ids) - size + 1, size):
            share = slice(start + self.rank, start + size, self.world_size)
            yield epoch, ids[share], draws[share]

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.batches():
            if not len(batch.ids):
                bad = self.bad_images.rows[-1]
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
        self._batches_before = state["batches"]  # of this epoch, yielded before the resume


class EvalLoader(_Batches):
    """Every sample exactly once over all ranks, unpadded: rank k takes samples k, k + W, k + 2W, ...

    With ``on_bad_image="count"`` unreadable images are left out and stand in ``bad_images``: whoever evaluates must
    count them.

    Args:
        dataset: where the samples come from.
        batch_size: samples per rank and step.
        ids: int64 (n,), the samples to evaluate; by default all.
        rank: of this process.
        world_size: number of processes.
        options: of the loop: workers, pin_memory, on_bad_image, bad_images, device_decoder.
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
        # Lightning would leave out a rank without images, for which the others wait when they gather.
        return max(1, -(-len(self.mine) // self.batch_size))

    def selections(self) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Yield this rank's samples in order."""
        for ids in torch.split(self.mine, self.batch_size) if len(self.mine) else ():
            yield 0, ids, torch.zeros_like(ids)

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.batches():
            if len(batch.ids):
                yield batch
