"""Who waits for whom: seconds per stage, and the share of time the device stood idle for want of data."""

import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import torch

T = TypeVar("T")
STAGES = ("read", "decode", "augment", "copy")
READ, DECODE, AUGMENT = range(3)
WORTH_A_HINT = 0.1
WORTH_SECONDS = 5.0
"""Below, the first batch and the start of the workers are most of what was measured."""


class Stopwatch:
    """Seconds of a worker's stages: reading, decoding, augmenting."""

    def __init__(self) -> None:
        self.seconds = [0.0, 0.0, 0.0]
        self._last = time.perf_counter()

    def lap(self, stage: int) -> None:
        """Count the time since the last lap to a stage."""
        now = time.perf_counter()
        self.seconds[stage] += now - self._last
        self._last = now


class Timings:
    """Sums over one loader since the last ``reset``.

    The stages are seconds of work: ``read``, ``decode`` and ``augment`` add up over all workers, ``copy`` is the host's
    time to hand batches to the device. ``waited`` is the time the device had nothing to do because the next
    batch was not there. On a CPU that is the time spent waiting for the loader. On a GPU, which runs behind the
    host, it is measured by the GPU itself, between two events recorded before and after the wait.

    Attributes:
        images: images delivered to this rank.
        elapsed: seconds from the first request for a batch to the last return of one.
        waited: seconds of ``elapsed`` without data.
    """

    def __init__(self) -> None:
        self.cuda = False
        self.reset()

    def reset(self) -> None:
        """Start anew."""
        self.stages = dict.fromkeys(STAGES, 0.0)
        self.images = 0
        self.elapsed = self.waited = 0.0
        self._events: list[tuple[Any, Any]] = []

    def add(self, images: int, seconds: Iterable[float]) -> None:
        """Count a batch and what its stages took in the workers."""
        self.images += images
        for stage, value in zip(STAGES, seconds, strict=False):
            self.stages[stage] += value

    def timed(self, batches: Iterator[T]) -> Iterator[T]:
        """Yield from ``batches`` and measure the waits."""
        last = time.perf_counter()
        while True:
            before = self._event()
            start = time.perf_counter()
            batch = next(batches, None)
            end = time.perf_counter()
            if self.cuda:
                self._events.append((before, self._event()))
                self._collect()
            else:
                self.waited += end - start
            self.elapsed += end - last
            last = end
            if batch is None:
                return
            yield batch

    def _event(self) -> Any:
        if not self.cuda:
            return None
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def _collect(self) -> None:
        while self._events and self._events[0][1].query():
            before, after = self._events.pop(0)
            self.waited += before.elapsed_time(after) / 1000

    @property
    def waiting_share(self) -> float:
        """Share of the time in which the device waited for data, 0 to 1."""
        return min(1.0, self.waited / self.elapsed) if self.elapsed else 0.0

    def to_dict(self) -> dict[str, float]:
        """Return milliseconds of work per image by stage, and the device's waiting share."""
        images = max(1, self.images)
        per_image = {f"{stage}_ms": round(1000 * value / images, 4) for stage, value in self.stages.items()}
        return per_image | {"waiting_share": round(self.waiting_share, 4)}

    def hint(self, workers: int, cores: int) -> str | None:
        """Return advice where the device waits for more than a tenth of the time, else None."""
        if self.waiting_share < WORTH_A_HINT or self.elapsed < WORTH_SECONDS:
            return None
        work = sum(self.stages[stage] for stage in ("read", "decode", "augment"))
        if not work:  # images in memory
            return None
        busy = max(self.elapsed - self.waited, 1e-9)
        needed = max(workers + 1, -(-work // busy))
        ms = ", ".join(f"{stage} {1000 * self.stages[stage] / self.images:.2f}" for stage in STAGES)
        if workers < cores:
            advice = f"data.workers={min(cores, int(needed))} would help (now {workers})"
        else:
            advice = (
                f"all {cores} cores decode already: `senet pack` makes smaller files, or give it more cores"
            )
        return f"the device waited for data {100 * self.waiting_share:.0f} % of the time; {advice}; ms/image: {ms}"
