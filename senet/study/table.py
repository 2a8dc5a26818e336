"""How a study stands: its points with what their seeds gave, and what is missing and why."""

import statistics
from typing import NamedTuple

from senet.errors import UserError
from senet.ledger import DONE, Job, Ledger
from senet.table import Column, Table
from senet.terminal import terminal_width
from senet.training.console import say


class Standing(NamedTuple):
    """One row: a point, the validation top-1 in percent of every finished seed, and the number of seeds."""

    label: str
    top1: list[float]
    jobs: int

    @property
    def mean(self) -> str:
        """Mean and standard deviation of the seeds, as far as there are any."""
        spread = f" ± {statistics.stdev(self.top1):.2f}" if len(self.top1) > 1 else ""
        return f"{statistics.mean(self.top1):.2f}{spread}" if self.top1 else "-"


COLUMNS = [
    Column[Standing]("point", lambda row: row.label, words=True),
    Column[Standing]("runs", lambda row: f"{len(row.top1)}/{row.jobs}", words=True),
    Column[Standing]("top-1 (%)", lambda row: row.mean, words=True),
]


def standings(ledger: Ledger) -> list[Standing]:
    """Return one row for each point."""
    rows = []
    for label in ledger.points:
        jobs = sorted((job for job in ledger.jobs.values() if job.label == label), key=lambda job: job.seed)
        found = [top1(ledger, job) for job in jobs]
        rows.append(Standing(label, [value for value in found if value is not None], len(jobs)))
    return rows


def top1(ledger: Ledger, job: Job) -> float | None:
    """Return the last validation top-1 of a finished job, of the average of its weights if it has one."""
    if job.status != "finished":
        return None
    try:
        last = ledger.directory(job).summary()["last"]
        return float(last.get("val_ema/top1", last["val/top1"]))
    except (UserError, KeyError, TypeError, ValueError):  # damaged: the report says so
        return None


def show(ledger: Ledger, *, reported: bool = False) -> None:
    """Print the study's table, or with ``reported`` write and print its report, and every job that is not done."""
    if reported and any(job.status == "finished" for job in ledger.jobs.values()):
        from senet.analysis.report import report  # draws: nothing else of a study waits for matplotlib

        say(f"\n{report([ledger.path]).text}")
        say(f"report    {ledger.path / 'report' / 'report.html'}")
    else:
        say(f"\n{Table(COLUMNS, standings(ledger)).text(width=terminal_width())}")
    say("")
    left = [job for job in ledger.jobs.values() if job.status not in DONE]
    for job in left:
        reason = f": {job.reason}" if job.reason else ""
        say(f"{job.status}: {job.label}, seed {job.seed}{reason} ({job.run})")
    if left:
        say(
            f"{len(left)} of {len(ledger.jobs)} runs are missing; run them with: senet study retry {ledger.path}"
        )
