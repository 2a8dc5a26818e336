"""Memory in which worker processes hand over their batches, used again and again.

A DataLoader maps fresh shared memory for every batch, whose page faults cost both sides more than the copy that is made
here. A worker is asked for its next batch when one of its batches is taken: it has at most ``prefetch`` under way, and
with one place more none is written to before what lies there has been copied.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.utils.data import get_worker_info

from senet.data.datasets import BadImage, Fetched, Sample, collate
from senet.errors import UserError


class Handed(NamedTuple):
    """A batch without its images, and where these lie: worker, place, and shape (B, H, W, C)."""

    fetched: Fetched
    worker: int
    place: int
    shape: torch.Size


class Ring:
    """Hands batches from workers to the main process.

    Args:
        workers: number of processes.
        prefetch: batches that each may have under way.
        size: bytes of the largest batch.

    Raises:
        UserError: if the machine or container has not so much shared memory.
    """

    def __init__(self, workers: int, prefetch: int, size: int) -> None:
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

    def put(self, samples: Sequence[Sample | BadImage]) -> Fetched | Handed:
        """Collate in a worker and leave the images here."""
        info = get_worker_info()
        assert info is not None
        place = self._batches % self.places.shape[1]
        self._batches += 1
        memory = self.places[info.id, place]
        fetched = collate(samples, memory)
        if fetched.batch is None:
            return fetched
        shape = fetched.batch.images.permute(0, 2, 3, 1).shape
        without = fetched.batch._replace(images=torch.empty(0))
        return Handed(fetched._replace(batch=without), info.id, place, shape)

    def take(self, handed: Fetched | Handed, pin_memory: bool) -> Fetched:
        """Return in the main process what a worker handed over, with images of its own."""
        if isinstance(handed, Fetched):
            return handed
        assert handed.fetched.batch is not None
        pixels = self.places[handed.worker, handed.place][: handed.shape.numel()].view(handed.shape)
        pixels = pixels.pin_memory() if pin_memory else pixels.clone()
        return handed.fetched._replace(batch=handed.fetched.batch._replace(images=pixels.permute(0, 3, 1, 2)))
