"""What can happen to a run: each fault is done for real, and what has to be mended before a resume is mended."""

import random
import resource
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGSTOP, SIGTERM, Signals

from senet.doctor.job import TrainJob, send

Mend = Callable[[], object]
Hurt = Callable[[TrainJob, Path], Mend]
"""Hurts a job that reads images in a folder; returns what mends it, if it does not go by itself."""


@dataclass(frozen=True)
class Fault:
    """Something that happens to a run.

    Attributes:
        name: in words.
        hurt: does it.
        ranks: processes that train.
        saving: whether it happens while a checkpoint is written.
        within: the part of the run in which it happens, of 0..1; at 0 there may be no ranks and data workers yet.
    """

    name: str
    hurt: Hurt
    ranks: int = 1
    saving: bool = False
    within: tuple[float, float] = (0.05, 0.9)


def _nothing() -> None:
    """Mend what goes by itself."""


def signals(number: Signals, whom: Callable[[TrainJob], set[int]]) -> Hurt:
    """Return what sends a signal to some of a job's processes."""

    def hurt(job: TrainJob, images: Path) -> Mend:
        send(number, whom(job))
        return _nothing

    return hurt


def first(job: TrainJob) -> set[int]:
    """Return the process that was started."""
    return {job.first}


def one_rank(job: TrainJob) -> set[int]:
    """Return the rank that was started last."""
    return {max(job.ranks())}


def break_an_image(job: TrainJob, images: Path) -> Mend:
    """Overwrite an image."""
    image = min(images.glob("train/*/*.JPEG"))
    before = image.read_bytes()
    image.write_bytes(b"no image")
    return lambda: image.write_bytes(before)


def hide_images(job: TrainJob, images: Path) -> Mend:
    """Let the images vanish, as those of a server do."""
    away = images.with_name(f"{images.name}-away")
    images.rename(away)
    return lambda: away.rename(images)


def limit_files(job: TrainJob, images: Path) -> Mend:
    """Leave no room for a checkpoint: files may have 64 KiB (``ulimit -f 64``)."""
    for pid in job.everyone():
        with suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (2**16, resource.RLIM_INFINITY))
    return _nothing


FIRST_HALF = (0.05, 0.5)
"""Early enough for the run to come across what has changed."""
KILLED = signals(SIGKILL, first)
FAULTS: tuple[Fault, ...] = (
    Fault("kill -9 of the process", KILLED, within=(0.0, 0.9)),
    Fault("kill -9 while a checkpoint is written", KILLED, saving=True),
    Fault("kill -9 of one of two ranks", signals(SIGKILL, one_rank), ranks=2),
    Fault("kill -9 of what started two ranks", KILLED, ranks=2),
    Fault("kill -9 of the data workers (as for want of memory)", signals(SIGKILL, TrainJob.workers)),
    Fault("SIGTERM to the process", signals(SIGTERM, first)),
    Fault(
        "SIGTERM to two ranks, their data workers and what started them",
        signals(SIGTERM, TrainJob.everyone),
        ranks=2,
    ),
    Fault("Ctrl-C", signals(SIGINT, first)),
    Fault("an image becomes unreadable", break_an_image, within=FIRST_HALF),
    Fault("the images vanish", hide_images, within=FIRST_HALF),
    Fault("no room for a checkpoint (ulimit -f)", limit_files, within=FIRST_HALF),
    Fault("the data workers hang (SIGSTOP)", signals(SIGSTOP, TrainJob.workers)),
    Fault("one of two ranks hangs (SIGSTOP)", signals(SIGSTOP, one_rank), ranks=2),
)


def kills(count: int, ranks: Sequence[int], moments: random.Random) -> Iterator[Fault]:
    """Yield faults that kill, on each number of ranks in turn, every third time while a checkpoint is written."""
    for index in range(count):
        several, saving = ranks[index % len(ranks)], index // len(ranks) % 3 == 2
        rank = several > 1 and moments.random() < 0.5
        hurt = signals(SIGKILL, one_rank) if rank else KILLED
        name = f"{'a rank' if rank else 'the process'}{' while saving' * saving}"
        yield Fault(name, hurt, several, saving, within=(0.05 if rank else 0.0, 0.9))
