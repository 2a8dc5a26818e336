"""A small run in processes of its own, and what can happen to it: each fault is done for real."""

import os
import random
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGSTOP, SIGTERM
from typing import Self

import torch

from senet import cli
from senet.errors import UserError
from senet.processes import children, environment, family, processes
from senet.training.launch import STOP_SIGNALS, describe_exit

LIMIT = 1200.0
"""Seconds that anything may take, the longest wait for a silent rank and a busy machine included."""


class TrainJob:
    """``senet train WORDS...`` in a session of its own, with its output in a file.

    It is a fork, so that what this process has imported need not be imported again.

    Args:
        words: of the command line.
        output: file that gets what it says.
    """

    def __init__(self, words: Sequence[str], output: Path) -> None:
        self.output = output
        self._process = get_context("fork").Process(target=_train, args=(words, output))
        self._process.start()
        assert self._process.pid
        self.first: int = self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        everyone = self.everyone()
        send(signal.SIGKILL, everyone)
        self._process.join()
        _await_end(everyone)

    def everyone(self) -> set[int]:
        """Return the process ids of all of it."""
        return {self.first} | family(self.first)

    def ranks(self) -> set[int]:
        """Return the processes that train: several that were started, or the first itself."""
        return {pid for pid in children(self.first) if "RANK" in environment(pid)} or {self.first}

    def workers(self) -> set[int]:
        """Return the data workers."""
        return {worker for pid in self.ranks() for worker in children(pid)}

    def wait_until(self, ready: Callable[[], bool], what: str, pause: float = 0.02) -> None:
        """Wait until something holds, or the job has ended.

        Args:
            ready: asked again and again.
            what: is waited for, in words.
            pause: seconds between two looks.

        Raises:
            UserError: if it does not within ``LIMIT`` seconds.
        """
        end = time.monotonic() + LIMIT
        while self._process.is_alive() and not ready():
            if time.monotonic() > end:
                raise UserError(f"waited {LIMIT:.0f} s for {what}, in vain")
            time.sleep(pause)

    def wait(self, everyone: Iterable[int] = ()) -> int:
        """Wait until its first process and ``everyone`` have ended; return the exit status of the first.

        What lost its parent is found below it no more, so ask ``everyone()`` before you hurt it.
        """
        self.wait_until(lambda: False, "a run to end")
        _await_end({*everyone})
        return int(self._process.exitcode or 0)

    def said(self) -> str:
        """Return why or how it ended, in its own words where it could say any."""
        lines = self.output.read_text(errors="replace").splitlines()
        words = [line for line in lines if line.startswith(("error: ", "stopped; "))]
        return words[-1] if words else f"nothing; it ended {describe_exit(self._process.exitcode or 0)}"


def _train(words: Sequence[str], output: Path) -> None:
    os.setsid()
    for number in STOP_SIGNALS:  # nohup, or a shell that does not wait, would have some ignored
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ["OMP_NUM_THREADS"] = "1"  # threads that wait for each other make small runs slow
    torch.set_num_threads(1)
    with output.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout, sys.stderr = (os.fdopen(n, "w", buffering=1, closefd=False) for n in (1, 2))
    sys.exit(cli.main(["train", *words]))


def _await_end(pids: set[int]) -> None:
    # Without their parents they end by themselves, if they are not stopped.
    while pids & processes().keys():
        time.sleep(0.02)


def send(number: signal.Signals, pids: Iterable[int]) -> None:
    """Send a signal to processes, some of which may have ended."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


Mend = Callable[[], object]
Hurt = Callable[[TrainJob, Path], Mend | None]
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


def signals(number: signal.Signals, whom: Callable[[TrainJob], set[int]]) -> Hurt:
    """Return what sends a signal to some of a job's processes."""
    return lambda job, images: send(number, whom(job))


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


def limit_files(job: TrainJob, images: Path) -> None:
    """Leave no room for a checkpoint: files may have 64 KiB (``ulimit -f 64``)."""
    for pid in job.everyone():
        with suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (2**16, resource.RLIM_INFINITY))


FIRST_HALF = (0.05, 0.5)
"""Early enough for the run to come across what has changed."""
WHILE_SAVING = " while a checkpoint is written"
KILL = Fault("kill -9 of the process", signals(SIGKILL, first), within=(0.0, 0.9))
KILL_RANK = Fault("kill -9 of one of two ranks", signals(SIGKILL, one_rank), ranks=2)
KILL_STARTER = Fault("kill -9 of what started two ranks", KILL.hurt, ranks=2, within=(0.0, 0.9))
FAULTS: tuple[Fault, ...] = (
    KILL,
    Fault(f"kill -9{WHILE_SAVING}", KILL.hurt, saving=True),
    KILL_RANK,
    KILL_STARTER,
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
        fault, saving = KILL, index // len(ranks) % 3 == 2
        if ranks[index % len(ranks)] > 1:
            fault = KILL_RANK if moments.random() < 0.5 else KILL_STARTER
        yield replace(fault, name=fault.name + WHILE_SAVING * saving, saving=saving)
