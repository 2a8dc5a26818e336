"""The ledger of a study: what belongs to it, how every job stands and why, in one file that is always whole."""

import fcntl
import json
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from senet.errors import UserError
from senet.training.rundir import RunDir, write_json

DONE = ("finished", "pruned")
"""Statuses of jobs that need not run again; the others are missing, running, failed and killed."""


@dataclass
class Point:
    """One row of the study's table: a configuration, of which every seed is a job.

    Attributes:
        label: its name in tables.
        overrides: what is set on the command line for it.
        baseline: label of the point it is compared with.
        paper: key of the paper's published figure.
        signature: what is built and trained, the same for two points that would be the same.
    """

    label: str
    overrides: list[str]
    baseline: str | None = None
    paper: str | None = None
    signature: str = ""


@dataclass
class Job:
    """One run of a study.

    Attributes:
        hash: of its configuration, its key in the ledger.
        label: of its point.
        seed: of its run.
        overrides: what composes its configuration.
        run: name of its run directory in the study's.
        status: missing, running, finished, failed, killed or pruned.
        reason: why it failed, was killed or pruned.
        attempts: how often it was started.
        handle: the executor's name for its process, while it runs.
        trials: the search trials that asked for this configuration.
        seconds: between start and end of its last attempt.
    """

    hash: str
    label: str
    seed: int
    overrides: list[str]
    run: str
    status: str = "missing"
    reason: str | None = None
    attempts: int = 0
    handle: str | None = None
    trials: list[int] = field(default_factory=list)
    started: float | None = None
    seconds: float | None = None


class Ledger:
    """``study.json`` of a study directory.

    Attributes:
        path: the study's directory.
        head: what the study is: name, command, baseline, table, seeds.
        points: rows of the table by label.
        jobs: by config hash.
    """

    def __init__(self, path: Path, head: dict[str, Any]) -> None:
        self.path, self.head = path, head
        self.points: dict[str, Point] = {}
        self.jobs: dict[str, Job] = {}

    @classmethod
    def open(cls, path: Path) -> "Ledger":
        """Read a study.

        Raises:
            UserError: if ``path`` is not a study directory.
        """
        path = path.resolve()
        if not (path / "study.json").is_file():
            raise UserError(f"{path} is not a study: it has no study.json")
        head = json.loads((path / "study.json").read_text())
        points, jobs = head.pop("points"), head.pop("jobs")
        ledger = cls(path, head)
        ledger.points = {p["label"]: Point(**p) for p in points}
        ledger.jobs = {key: Job(**job) for key, job in jobs.items()}
        return ledger

    def save(self) -> None:
        """Write the file, whole or not at all."""
        self.path.mkdir(parents=True, exist_ok=True)
        points = [asdict(point) for point in self.points.values()]
        jobs = {key: asdict(job) for key, job in self.jobs.items()}
        write_json(self.path / "study.json", {**self.head, "points": points, "jobs": jobs})

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the study for this process; the system lets go of it however the process ends.

        Raises:
            UserError: if another process holds it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / ".lock").open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                file.seek(0)
                raise UserError(
                    f"process {file.read().strip()} is running this study: {self.path}"
                ) from error
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield

    def directory(self, job: Job) -> RunDir:
        """Return the run directory of a job."""
        return RunDir(self.path / job.run)

    def add_point(self, point: Point) -> None:
        """Add a row, or set what may change of one there is.

        Raises:
            UserError: if another row of the study builds and trains the same.
        """
        for other in self.points.values():
            if other.signature == point.signature and other.label != point.label:
                raise UserError(
                    f"{other.label} and {point.label} are the same: they build the same network and train it "
                    "alike; drop one of the two"
                )
        self.points[point.label] = point

    def reconcile(self, jobs: Iterable[Job]) -> None:
        """Take over from the run directories what happened while no driver was looking."""
        for job in jobs:
            run = self.directory(job)
            if not run.record_file.is_file():
                job.status, job.reason, job.handle = "missing", None, None
            elif job.handle is None and job.status not in DONE and run.record()["status"] == "finished":
                job.status, job.reason = "finished", None


def close(job: Job, run: RunDir, status: int | None) -> None:
    """Enter how a job ended, from its run's record and its process's exit status."""
    from senet.training.launch import describe_exit

    record: dict[str, Any] = run.record() if run.record_file.is_file() else {}
    job.handle = None
    if job.started is not None:
        job.seconds = round(time.time() - job.started, 1)
    if record.get("status") == "finished":
        job.status, job.reason = "finished", None
    elif record.get("status") in ("failed", "killed") and record.get("error"):
        job.status, job.reason = record["status"], record["error"]
    elif record.get("status") == "interrupted":
        job.status, job.reason = "killed", "stopped, with a checkpoint"
    elif status is None:
        job.status, job.reason = "killed", "it ended with the process that ran the study"
    elif status == 0 or 0 < status < 128:
        job.status, job.reason = (
            "failed",
            f"its process ended {describe_exit(status)}: see {run.path}/output.txt",
        )
    else:
        job.status, job.reason = "killed", f"its process ended {describe_exit(status)}"
