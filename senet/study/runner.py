"""The driver of a study: keeps the slots full, watches the jobs, enters how each ended, stops in order."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from senet.errors import UserError, in_a_line
from senet.ledger import DONE, Job, Ledger
from senet.rundir import RunDir
from senet.study.executors import GONE, Executor, JobSlot
from senet.training.console import FAILED, OK, say
from senet.training.launch import describe_exit, stop_handlers

POLL_SECONDS = 0.3


class Source:
    """Says what runs next: the jobs of a plan, each tried once, those that are done left out.

    A search has the same methods.
    """

    def __init__(self, jobs: list[Job]) -> None:
        self._jobs, self._left = jobs, list(jobs)

    def next(self) -> Job | None:
        """Return a job to start now, neither done nor running, or ``None``."""
        job = next((job for job in self._left if job.status not in ("running", *DONE)), None)
        if job is not None:
            self._left.remove(job)
        return job

    def watch(self, job: Job) -> str | None:
        """Look at a running job; return the reason to stop it, if there is one: here every job runs to its end."""
        return None

    def ended(self, job: Job, *, interrupted: bool) -> None:
        """Take note of a job that ended, ``interrupted`` if only because its driver did: here nothing depends on it."""

    def conclude(self) -> int:
        """Say what came of it all; return the exit status: whether nothing is left to do."""
        return OK if all(job.status in DONE for job in self._jobs) else FAILED


@dataclass
class Running:
    """A job that was started.

    Attributes:
        job: itself.
        handle: the executor's name for it.
        slot: that it fills; ``None`` if an earlier driver started more than there are now.
        adopted: whether an earlier driver started it.
        stopped: why its source had it stopped.
    """

    job: Job
    handle: str
    slot: JobSlot | None
    adopted: bool = False
    stopped: str | None = None


class Runner:
    """Runs what a source offers, at most one job in each slot.

    Args:
        ledger: locked by this process.
        executor: where jobs run.
        slots: as many jobs run at once.
        source: of jobs.
    """

    def __init__(self, ledger: Ledger, executor: Executor, slots: list[JobSlot], source: Source) -> None:
        self.ledger, self.executor, self.source = ledger, executor, source
        self._free = list(slots)
        self._running: list[Running] = []
        self._interrupts = self._heeded = 0

    def run(self) -> bool:
        """Run until nothing is left to start and nothing runs; return whether it was interrupted."""
        self._adopt()
        with self._signals():
            self._fill()
            while self._running:
                time.sleep(POLL_SECONDS)
                self._heed()
                self._collect()
                self._fill()
        return self._interrupts > 0

    def _adopt(self) -> None:
        """Watch on over jobs that an earlier driver left running."""
        for job in self.ledger.jobs.values():
            if job.status == "running" and job.handle is not None:
                slot = self._free.pop(0) if self._free else None
                self._running.append(Running(job, job.handle, slot, adopted=True))

    def _fill(self) -> None:
        while self._free and not self._interrupts and (job := self.source.next()) is not None:
            self._start(job, self._free.pop(0))

    def _start(self, job: Job, slot: JobSlot) -> None:
        run = self.ledger.directory(job)
        resumed = bool(run.to_go_on_from())
        job.attempts += 1
        job.started, job.seconds, job.reason, job.status = time.time(), None, None, "running"
        try:
            if not resumed:
                run.start_over()
            run.update(status="starting", error=None)
            job.handle = self.executor.submit(run.path, slot)
        # One job whose directory is gone, or that an engine refuses, must not end the study.
        except Exception as error:
            job.status, job.reason = "failed", f"it could not be started: {in_a_line(error)}"
            self._free.append(slot)
            self._tell(job)
            self.source.ended(job, interrupted=False)
        else:
            self._running.append(Running(job, job.handle, slot))
            say(f"{self._count()}  {job.label}, seed {job.seed}: {'continued' if resumed else 'started'}")
        self.ledger.save()

    def _collect(self) -> None:
        """Enter the jobs that have ended; ask the source whether the others may go on."""
        for running in list(self._running):
            job, status = running.job, self.executor.poll(running.handle)
            if status is None:
                if running.stopped is None and (reason := self.source.watch(job)) is not None:
                    running.stopped = reason
                    self.executor.stop(running.handle)
                continue
            self._running.remove(running)
            if running.slot is not None:
                self._free.append(running.slot)
            close(job, self.ledger.directory(job), status)
            if running.stopped is not None and job.status != "finished":
                job.status, job.reason = "pruned", running.stopped
            cut_short = job.status == "killed" and (running.adopted or self._interrupts > 0)
            self.source.ended(job, interrupted=cut_short)
            self.ledger.save()
            self._tell(job)

    def _count(self) -> str:
        done = sum(job.status in DONE for job in self.ledger.jobs.values())
        return f"[{done}/{len(self.ledger.jobs)}]"

    def _tell(self, job: Job) -> None:
        seconds = f" after {job.seconds:.0f} s" if job.seconds is not None else ""
        reason = f": {job.reason}" if job.reason else ""
        say(f"{self._count()}  {job.label}, seed {job.seed}: {job.status}{seconds}{reason}")

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Let what asks to stop stop the jobs in order; a second Ctrl-C or SIGTERM stops them at once."""
        before = stop_handlers()
        try:
            for number in before:
                signal.signal(number, self._interrupt)
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _interrupt(self, number: int, frame: Any) -> None:
        # It may come while a job is started or a line is printed, so it is heeded between two of those.
        if not self._interrupts or number in (signal.SIGINT, signal.SIGTERM):
            self._interrupts += 1

    def _heed(self) -> None:
        """Stop the jobs if asked to since the last time."""
        if self._interrupts == self._heeded:
            return
        if not self._heeded:
            say(f"stopping {len(self._running)} jobs, each with a checkpoint (again: at once)")
        self._heeded = self._interrupts
        for running in self._running:
            self.executor.stop(running.handle, now=self._interrupts > 1)


def close(job: Job, run: RunDir, status: int) -> None:
    """Enter how a job ended, from its run's record and its process's exit status."""
    record: dict[str, Any] = {}
    with suppress(UserError):  # it is gone or damaged: then the exit status says what there is to say
        record = run.record()
    recorded, error = record.get("status"), record.get("error")
    job.handle = None
    if job.started is not None:
        job.seconds = round(time.time() - job.started, 1)
    if recorded == "finished":
        job.status, job.reason = "finished", None
    elif recorded in ("failed", "killed") and error:
        job.status, job.reason = recorded, error
    elif recorded == "interrupted":
        job.status, job.reason = "killed", "stopped, with a checkpoint"
    elif status == GONE:
        job.status, job.reason = "killed", "it ended with the process that ran the study"
    elif 0 <= status < 128:
        ended = describe_exit(status)
        job.status, job.reason = "failed", f"its process ended {ended}: see {run.output_file}"
    else:
        job.status, job.reason = "killed", f"its process ended {describe_exit(status)}"
