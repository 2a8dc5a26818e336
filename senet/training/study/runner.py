"""The driver of a study: keeps the slots full, watches the jobs, enters how each ended, stops in order."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from senet.training.console import say
from senet.training.study.executors import GONE, Executor, Slot
from senet.training.study.ledger import DONE, Job, Ledger, close

POLL_SECONDS = 0.3


class Source(Protocol):
    """Says what runs next."""

    def next(self) -> Job | None:
        """Return a job to start now, or ``None``."""

    def watch(self, job: Job) -> str | None:
        """Look at a running job; return the reason to stop it, if there is one."""

    def ended(self, job: Job, *, interrupted: bool) -> None:
        """Take note of a job that ended, ``interrupted`` if only because its driver did."""


class Grid:
    """The jobs of a plan, each tried once, those that are done left out."""

    def __init__(self, jobs: list[Job]) -> None:
        self._left = list(jobs)

    def next(self) -> Job | None:
        """Return the next job that is neither done nor running."""
        for job in self._left:
            if job.status != "running":
                self._left.remove(job)
                if job.status not in DONE:
                    return job
                return self.next()
        return None

    def watch(self, job: Job) -> str | None:
        """Let every job run to its end."""
        return None

    def ended(self, job: Job, *, interrupted: bool) -> None:
        """Nothing depends on it."""


class Runner:
    """Runs what a source offers, at most one job in each slot.

    Args:
        ledger: locked by this process.
        executor: where jobs run.
        slots: as many jobs run at once.
        source: of jobs.
    """

    def __init__(self, ledger: Ledger, executor: Executor, slots: list[Slot], source: Source) -> None:
        self.ledger, self.executor, self.source = ledger, executor, source
        self._free = list(slots)
        self._running: dict[str, tuple[Job, Slot | None]] = {}
        self._adopted: set[str] = set()
        self._stopping: dict[str, str] = {}
        self._interrupts = 0

    def run(self) -> bool:
        """Run until nothing is left to start and nothing runs; return whether it was interrupted."""
        self._adopt()
        with self._signals():
            self._fill()
            while self._running:
                time.sleep(POLL_SECONDS)
                self._collect()
                self._fill()
        return self._interrupts > 0

    def _adopt(self) -> None:
        """Watch on over jobs that an earlier driver left running."""
        for job in self.ledger.jobs.values():
            if job.status == "running" and job.handle is not None:
                self._running[job.hash] = job, self._free.pop(0) if self._free else None
                self._adopted.add(job.hash)

    def _fill(self) -> None:
        while self._free and not self._interrupts and (job := self.source.next()) is not None:
            self._start(job, self._free.pop(0))

    def _start(self, job: Job, slot: Slot) -> None:
        run = self.ledger.directory(job)
        resumed = (run.checkpoints / "last.ckpt").exists()
        if not resumed:
            run.start_over()
        run.update(status="starting", error=None)
        job.attempts += 1
        job.started, job.reason, job.status = time.time(), None, "running"
        try:
            job.handle = self.executor.submit(run.path, slot)
        except Exception as error:  # one job that an engine refuses must not end the study
            job.status, job.reason = "failed", f"it could not be started: {error}"
            self._free.append(slot)
            self._tell(job)
            self.source.ended(job, interrupted=False)
        else:
            self._running[job.hash] = job, slot
            say(f"{self._count()}  {job.label}, seed {job.seed}: {'continued' if resumed else 'started'}")
        self.ledger.save()

    def _collect(self) -> None:
        for key, (job, slot) in list(self._running.items()):
            assert job.handle is not None
            status = self.executor.poll(job.handle)
            if status is None:
                self._look(job)
                continue
            del self._running[key]
            if slot is not None:
                self._free.append(slot)
            close(job, self.ledger.directory(job), None if status == GONE else status)
            asked = self._stopping.pop(key, None)
            if asked is not None and job.status != "finished":
                job.status, job.reason = "pruned", asked
            adopted = key in self._adopted
            self._adopted.discard(key)
            self.source.ended(job, interrupted=job.status == "killed" and (adopted or self._interrupts > 0))
            self.ledger.save()
            self._tell(job)

    def _look(self, job: Job) -> None:
        if job.hash not in self._stopping and (reason := self.source.watch(job)) is not None:
            assert job.handle is not None
            self._stopping[job.hash] = reason
            self.executor.stop(job.handle)

    def _count(self) -> str:
        done = sum(job.status in DONE for job in self.ledger.jobs.values())
        return f"[{done}/{len(self.ledger.jobs)}]"

    def _tell(self, job: Job) -> None:
        seconds = f" after {job.seconds:.0f} s" if job.seconds is not None else ""
        reason = f": {job.reason}" if job.reason else ""
        say(f"{self._count()}  {job.label}, seed {job.seed}: {job.status}{seconds}{reason}")

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Let Ctrl-C and SIGTERM stop the jobs in order; a second one stops them at once."""
        numbers = (signal.SIGINT, signal.SIGTERM)
        before: dict[int, Callable[..., Any] | int | None] = {}
        for number in numbers:
            before[number] = signal.signal(number, self._interrupt)
        try:
            yield
        finally:
            for number in numbers:
                signal.signal(number, before[number])

    def _interrupt(self, number: int, frame: Any) -> None:
        self._interrupts += 1
        if self._interrupts == 1:
            say(f"stopping {len(self._running)} jobs, each with a checkpoint (again: at once)")
        for job, _ in self._running.values():
            if job.handle is not None:
                self.executor.stop(job.handle, now=self._interrupts > 1)
