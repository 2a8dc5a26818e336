"""``study.json``, the ledger of a study: what belongs to it, how every job stands and why. Always whole."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from senet.errors import UserError
from senet.files import hold, remove_parts, write_json
from senet.rundir import RunDir

DONE = ("finished", "pruned")
"""Statuses of jobs that need not run again; the others are missing, running, failed and killed."""


@dataclass
class PlannedPoint:
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

    def __init__(self, path: Path) -> None:
        self.path, self.file = path, path / "study.json"
        self.head: dict[str, Any] = {}
        self.points: dict[str, PlannedPoint] = {}
        self.jobs: dict[str, Job] = {}

    @classmethod
    def lies_in(cls, path: Path) -> bool:
        """Whether a directory is a study's."""
        return cls(path).file.is_file()

    @classmethod
    def open(cls, path: Path) -> "Ledger":
        """Read a study.

        Raises:
            UserError: if ``path`` is not a study directory, or its file is damaged.
        """
        path = path.resolve()
        if not cls.lies_in(path):
            raise UserError(f"{path} is not a study: it has no study.json")
        ledger = cls(path)
        try:
            head = json.loads(ledger.file.read_text())
            points = [PlannedPoint(**point) for point in head.pop("points")]
            ledger.jobs = {key: Job(**job) for key, job in head.pop("jobs").items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{ledger.file} cannot be read ({type(error).__name__} {error})") from error
        ledger.head = head
        ledger.points = {point.label: point for point in points}
        if len(ledger.points) < len(points):
            raise UserError(f"{ledger.file} has two points of one label")
        if not {job.label for job in ledger.jobs.values()} <= ledger.points.keys():
            raise UserError(f"{ledger.file} has a job of no point")
        return ledger

    def save(self) -> None:
        """Write the file, whole or not at all."""
        points = [asdict(point) for point in self.points.values()]
        jobs = {key: asdict(job) for key, job in self.jobs.items()}
        write_json(self.file, {**self.head, "points": points, "jobs": jobs})

    @classmethod
    @contextmanager
    def locked(cls, path: Path) -> Iterator["Ledger"]:
        """Hold a study, known or new, for this process; the system lets go of it however the process ends.

        Raises:
            UserError: if another process holds it.
        """
        path.mkdir(parents=True, exist_ok=True)
        try:
            lock = hold(path / ".lock")
        except BlockingIOError as error:
            raise UserError(f"{error.strerror} is running this study: {path}") from error
        try:
            remove_parts(path)
            yield cls.open(path) if cls.lies_in(path) else cls(path)
        finally:
            os.close(lock)

    def directory(self, job: Job) -> RunDir:
        """Return the run directory of a job."""
        return RunDir(self.path / job.run)

    def add_point(self, point: PlannedPoint) -> None:
        """Add a row, or set what may change of one there is.

        Raises:
            UserError: if it builds and trains something else than when it was added, or another row the same.
        """
        known = self.points.get(point.label)
        if known is not None and known.signature not in ("", point.signature):
            raise UserError(
                f"{point.label}: its configuration files have changed since the study began: start a new study, "
                "in another runs_dir"
            )
        for other in self.points.values():
            if other.signature == point.signature and other.label != point.label:
                raise UserError(
                    f"{other.label} and {point.label} are the same: they build the same network and train it "
                    "alike; drop one of the two"
                )
        self.points[point.label] = point

    def reconcile(self) -> None:
        """Take over from the run directories what happened while no driver was looking."""
        for job in self.jobs.values():
            run = self.directory(job)
            if not run.record_file.is_file():
                job.status, job.reason, job.handle = "missing", None, None
            elif job.handle is None and job.status not in DONE:
                with suppress(UserError):  # a damaged record: who runs the job or reports on it says so
                    if run.record().get("status") == "finished":
                        job.status, job.reason = "finished", None
