"""How a study stands: its points with what their seeds gave, and what is missing and why."""

import json
import statistics
from typing import Any

from senet.training.console import say
from senet.training.study.ledger import DONE, Job, Ledger


def top1(ledger: Ledger, job: Job) -> float | None:
    """Return the last validation top-1 of a finished job, of the average of its weights if it has one."""
    file = ledger.directory(job).summary_file
    if job.status != "finished" or not file.is_file():
        return None
    last: dict[str, Any] = json.loads(file.read_text())["last"]
    return float(last.get("val_ema/top1", last["val/top1"]))


def rows(ledger: Ledger) -> list[tuple[str, list[float], int]]:
    """Return label, top-1 of every finished seed, and the number of jobs, point by point."""
    table = []
    labels = list(ledger.points) or list(dict.fromkeys(job.label for job in ledger.jobs.values()))
    for label in labels:
        jobs = sorted((j for j in ledger.jobs.values() if j.label == label), key=lambda job: job.seed)
        values = [value for job in jobs if (value := top1(ledger, job)) is not None]
        table.append((label, values, len(jobs)))
    return table


def show(ledger: Ledger, *, report: bool = True) -> None:
    """Print the study's table, or its report, and then every job that is not done."""
    if not (report and _report(ledger)):
        width = max([len(label) for label, _, _ in rows(ledger)] + [5])
        say("")
        say(f"{'point':{width}}  runs   top-1 (%)")
        for label, values, count in rows(ledger):
            spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
            mean = f"{statistics.mean(values):.2f}{spread}" if values else "-"
            say(f"{label:{width}}  {len(values)}/{count}    {mean}")
    say("")
    left = [job for job in ledger.jobs.values() if job.status not in DONE]
    for job in left:
        reason = f": {job.reason}" if job.reason else ""
        say(f"{job.status}: {job.label}, seed {job.seed}{reason} ({ledger.path / job.run})")
    if left:
        say(
            f"{len(left)} of {len(ledger.jobs)} runs are missing; run them with: senet study retry {ledger.path}"
        )


def _report(ledger: Ledger) -> bool:
    """Write and print the report, if there is something to report."""
    if not any(job.status == "finished" for job in ledger.jobs.values()):
        return False
    try:
        from senet.analysis.report import report
    except ModuleNotFoundError:
        return False
    made = report([ledger.path])
    say(f"\n{made.text}")
    say(f"report    {ledger.path / 'report' / 'report.html'}")
    return True
