"""A training run in processes of its own, whom one may hurt, and none of which outlives its block."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
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
