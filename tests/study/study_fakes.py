"""An executor that runs nothing: a job's figures are a function of its configuration."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

from senet.files import write_json
from senet.rundir import RunDir
from senet.study.executors import GONE
from senet.training.loggers import CsvTable

ROOT = Path(__file__).parents[2]


class FakeExecutor:
    """Every poll is one epoch of every job.

    Args:
        curve: validation top-1 of each epoch, from a run's configuration; an exception ends the job with its
            message as the reason, and an integer as its exit status without a record.
        die_at: raise in the n-th submit, as a killed driver would.
    """

    def __init__(self, curve: Callable[[dict], list[float] | int], die_at: int | None = None) -> None:
        self.curve, self.die_at = curve, die_at
        self.started: list[Path] = []
        self.stopped: list[str] = []
        self.at_once = self.most_at_once = 0
        self.jobs: dict[str, Iterator[int | None]] = {}

    def submit(self, run: Path, slot: object) -> str:
        if self.die_at is not None and len(self.started) == self.die_at:
            raise KeyboardInterrupt
        self.started.append(run)
        handle = str(len(self.started))
        self.jobs[handle] = self._job(RunDir(run), handle)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        return handle

    def _job(self, run: RunDir, handle: str) -> Iterator[int | None]:
        run.update(status="running")
        try:
            curve = self.curve(run.config())
        except ValueError as error:
            run.update(status="failed", error=str(error))
            yield 1
            return
        if isinstance(curve, int):
            yield curve
            return
        checkpoint, kept = run.checkpoint("last"), run.to_go_on_from()
        first = int(kept[0].read_text()) if kept else 0
        table = CsvTable(run.metrics_file, first)
        for epoch, value in enumerate(curve[first:], start=first):
            table.append({"step": epoch, "epoch": epoch, "val/top1": value})
            checkpoint.write_text(str(epoch + 1))
            if handle in self.stopped:
                run.update(status="interrupted")
                yield 143
                return
            yield None
        write_json(run.summary_file, {"last": {"val/top1": curve[-1]}})
        run.update(status="finished")
        yield 0

    def poll(self, handle: str) -> int | None:
        if handle not in self.jobs:
            return GONE
        status = next(self.jobs[handle])
        if status is not None:
            self.at_once -= 1
        return status

    def stop(self, handle: str, *, now: bool = False) -> None:
        self.stopped.append(handle)


def ledger_of(tmp_path: Path) -> dict:
    (path,) = [p for p in (tmp_path / "runs" / "studies").iterdir() if not p.is_symlink()]
    return json.loads((path / "study.json").read_text()) | {"path": path}


def statuses(tmp_path: Path) -> dict[tuple[str, int], str]:
    return {(job["label"], job["seed"]): job["status"] for job in ledger_of(tmp_path)["jobs"].values()}


def flat(config: dict) -> list[float]:
    """Return two epochs that differ by seed alone."""
    return [50.0 + config["seed"], 60.0 + config["seed"]]
