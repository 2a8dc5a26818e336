"""Run directories in: each read as it lies, grouped into the points of a study, none passed over silently."""

import csv
import glob
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from omegaconf import OmegaConf

from senet.analysis.labels import label_points, order_key, settings
from senet.errors import UserError, did_you_mean
from senet.models import plain_twin

At = Literal["last", "best"]
PREFIX = {"raw": "val", "ema": "val_ema"}
"""What a summary calls the figures of raw and averaged weights: ``val/top1``, ``val_ema/top1``."""


class Predictions(NamedTuple):
    """Which images a network got right: sorted ids and their labels (N,), and right (N,) as bool."""

    ids: npt.NDArray[np.int64]
    labels: npt.NDArray[np.str_]
    right: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Run:
    """One run directory.

    Attributes:
        path: the directory.
        config: the resolved configuration; empty if it cannot be read.
        record: ``run.json``.
        summary: ``summary.json`` of a finished run, else empty.
        problem: why the run has no figures, or None.
    """

    path: Path
    config: Mapping[str, Any]
    record: Mapping[str, Any]
    summary: Mapping[str, Any]
    problem: str | None

    @property
    def seed(self) -> int:
        """The run's seed."""
        return int(self.record.get("seed", self.config.get("seed", 0)))

    @property
    def weights(self) -> str:
        """The weights a run is judged by: "ema" if it keeps an average, else "raw"."""
        return "ema" if f"{PREFIX['ema']}/top1" in self.summary["best"] else "raw"

    def error(self, at: At, k: Literal[1, 5] = 1) -> float:
        """Return the top-k error in percent, of the last epoch or of the best one by top-1."""
        return 100 - float(self.summary[at][f"{PREFIX[self.weights]}/top{k}"])

    @cached_property
    def _tables(self) -> dict[At, Predictions]:
        return {}

    def predictions(self, at: At) -> Predictions | None:
        """Return what was predicted for every validation image, or None if the file is missing."""
        path = self.path / "predictions" / f"{at}_{self.weights}.csv"
        if at not in self._tables:
            if not path.is_file():
                return None
            self._tables[at] = _read_predictions(path)
        return self._tables[at]


@dataclass
class Point:
    """Runs that differ in nothing but the seed.

    Attributes:
        label: what sets it apart from the other points.
        config: the configuration of one of its runs; empty if there is none.
        runs: the finished runs by seed.
        baseline: label of the point it is compared with, or None.
        paper: key of the published figure, or None.
    """

    label: str
    config: Mapping[str, Any] = field(default_factory=dict)
    runs: dict[int, Run] = field(default_factory=dict)
    baseline: str | None = None
    paper: str | None = None

    @property
    def reduction(self) -> int | None:
        """The reduction ratio r, or None without SE."""
        se = self.config.get("se")
        return int(se["reduction"]) if se else None


class Gap(NamedTuple):
    """A run that is not in the figures, and why; ``missing`` unless another run of its seed stands in."""

    label: str
    seed: int
    path: Path | None
    reason: str
    missing: bool = True


@dataclass
class Study:
    """Points in the order of a table, and what is missing."""

    name: str
    points: list[Point]
    gaps: list[Gap]

    def point(self, label: str | None) -> Point | None:
        """Return the point of that label."""
        return next((point for point in self.points if point.label == label), None)


def collect(paths: Sequence[str | Path], baseline: str | None = None, at: At = "last") -> Study:
    """Read every run directory at or below ``paths`` (directories or globs).

    A directory with ``study.json`` gives labels, order, baseline and the paper's keys; otherwise points are
    what the configurations say, and the baseline is the plain twin, or else the first point.

    Raises:
        UserError: if nothing is found, or ``baseline`` is no point.
    """
    directories = find_runs(paths)
    plan = _plan(paths)
    if not directories and plan is None:
        raise UserError(f"there is no run directory in {', '.join(map(str, paths))}")
    runs = [read_run(directory, at) for directory in directories]
    study = _planned(plan, runs) if plan is not None else _inferred(runs, _name(paths))
    if baseline is not None:
        labels = [point.label for point in study.points]
        if baseline not in labels:
            raise UserError(f'there is no point "{baseline}"{did_you_mean(baseline, labels)}')
        for point in study.points:
            point.baseline = None if point.label == baseline else baseline
    return study


def _name(paths: Sequence[str | Path]) -> str:
    """Return the name of the one directory given, else "runs"."""
    only = Path(paths[0]).resolve() if len(paths) == 1 else None
    return only.name if only is not None and only.is_dir() else "runs"


def find_runs(paths: Iterable[str | Path]) -> list[Path]:
    """Return the training run directories at or below ``paths``, each once, oldest name first."""
    found: dict[Path, Path] = {}
    for given in paths:
        matches = [Path(p) for p in sorted(glob.glob(str(given)))] or [Path(given)]
        for path in matches:
            if not path.is_dir():
                raise UserError(f"{path}: there is no such directory")
            for run in _walk(path):
                found.setdefault(run.resolve(), run)
    return sorted(found.values(), key=lambda run: run.name)


def _walk(path: Path) -> list[Path]:
    if (path / "run.json").is_file() and (path / "config.yaml").is_file():
        return [path]
    runs: list[Path] = []
    for folder, children, _ in os.walk(path):
        here = [Path(folder) / child for child in children if (Path(folder) / child / "run.json").is_file()]
        runs += [run for run in here if not run.is_symlink()]
        children[:] = [child for child in children if Path(folder) / child not in here]
    return runs


def read_run(path: Path, at: At = "last") -> Run:
    """Read one run directory; a broken or unfinished one gets a ``problem``."""
    record: dict[str, Any] = {}
    config: dict[str, Any] = {}
    summary: dict[str, Any] = {}
    try:
        record = json.loads((path / "run.json").read_text())
        loaded = OmegaConf.to_container(OmegaConf.load(path / "config.yaml"))
        config = {str(key): value for key, value in loaded.items()} if isinstance(loaded, dict) else {}
        problem = _problem(path, record)
        if problem is None:
            summary = json.loads((path / "summary.json").read_text())
    except (OSError, ValueError) as error:
        problem = f"cannot be read: {type(error).__name__}"
    run = Run(path, config, record, summary, problem)
    if problem is None:
        problem = _contradiction(run, at)
    return Run(path, config, record, summary, problem)


def _problem(path: Path, record: Mapping[str, Any]) -> str | None:
    status = record.get("status", "unknown")
    if status == "failed":
        return f"failed: {record.get('error') or 'no reason recorded'}"
    if status in ("running", "starting"):
        return "unfinished: still running, or killed"
    if status != "finished":
        return str(status)
    return None if (path / "summary.json").is_file() else "finished without summary.json"


def _contradiction(run: Run, at: At) -> str | None:
    """Say so if the summary and the predictions are not of the same network."""
    try:
        error, table = run.error(at), run.predictions(at)
    except (KeyError, TypeError, ValueError) as reason:
        return f"summary.json or predictions cannot be understood: {type(reason).__name__} {reason}"
    if table is not None:
        counted = 100 * (1 - float(table.right.mean()))
        if abs(counted - error) > 1e-3:
            return f"summary.json says {error:.3f} % top-1 error, the predictions {counted:.3f} %"
    return None


def _read_predictions(path: Path) -> Predictions:
    with path.open(newline="") as file:
        rows = sorted((int(row["id"]), row["label"], row["correct"] == "1") for row in csv.DictReader(file))
    if not rows:
        raise ValueError(f"{path.name} is empty")
    ids, labels, right = zip(*rows, strict=True)
    return Predictions(np.array(ids, np.int64), np.array(labels), np.array(right, np.bool_))


# Points ---------------------------------------------------------------------------------------------------


def _inferred(runs: Sequence[Run], name: str) -> Study:
    """Group runs by configuration; label each group by what differs."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        key = json.dumps(settings(run.config), sort_keys=True, default=str) if run.config else str(run.path)
        groups.setdefault(key, []).append(run)
    known = [group for group in groups.values() if group[0].config]
    configs = [group[0].config for group in known]
    labels = label_points(configs)
    points, gaps = [], []
    for label, config, group in zip(labels, configs, known, strict=True):
        point = Point(label, config)
        gaps += _fill(point, group)
        points.append(point)
    gaps += [
        Gap(group[0].path.name, group[0].seed, group[0].path, group[0].problem or "has no configuration")
        for group in groups.values()
        if not group[0].config
    ]
    points.sort(key=lambda point: order_key(point.label, point.config))
    _infer_baselines(points)
    return Study(name, points, gaps)


def _fill(point: Point, runs: Sequence[Run]) -> list[Gap]:
    """Give a point the newest finished run of each seed; return the rest with reasons."""
    gaps = []
    for seed in sorted({run.seed for run in runs}):
        attempts = [run for run in runs if run.seed == seed]
        finished = [run for run in attempts if run.problem is None]
        if finished:
            *older, point.runs[seed] = finished
            gaps += [
                Gap(point.label, seed, run.path, "a newer run of this seed is used", False) for run in older
            ]
        else:
            gaps.append(Gap(point.label, seed, attempts[-1].path, attempts[-1].problem or ""))
    return gaps


def _infer_baselines(points: Sequence[Point]) -> None:
    for point in points:
        if point.config.get("se") is None and any(p.config.get("se") for p in points):
            continue
        trunk = _trunk(point)
        plain = [p for p in points if p.config.get("se") is None and _trunk(p) == trunk and p is not point]
        if len(plain) == 1 and point.config.get("se"):
            point.baseline = plain[0].label
        elif not plain and point is not points[0] and trunk == _trunk(points[0]):
            point.baseline = points[0].label


def _trunk(point: Point) -> str:
    return plain_twin(str(point.config["model"]["name"]))


# study.json -----------------------------------------------------------------------------------------------


def _plan(paths: Sequence[str | Path]) -> dict[str, Any] | None:
    if len(paths) != 1 or not (Path(paths[0]) / "study.json").is_file():
        return None
    path = Path(paths[0]) / "study.json"
    try:
        plan = dict(json.loads(path.read_text()))
        labels = [point["label"] for point in plan["points"]]
        jobs = [(job["run"], job["label"], job["seed"]) for job in plan["jobs"].values()]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} cannot be read ({type(error).__name__} {error})") from error
    if not labels:
        return None  # a search has no points beforehand
    if not {label for _, label, _ in jobs} <= set(labels):
        raise UserError(f"{path} has a job of no point")
    if len(set(labels)) != len(labels):
        raise UserError(f"{path} has two points of one label")
    return plan


def _planned(plan: Mapping[str, Any], runs: Sequence[Run]) -> Study:
    """Give every run to the point whose job it is; jobs without a finished run become gaps."""
    jobs = {job["run"]: job for job in plan["jobs"].values()}
    points, gaps = [], []
    for entry in plan["points"]:
        label = entry["label"]
        baseline = entry.get("baseline") or plan.get("baseline")
        mine = {run.path.name: run for run in runs if jobs.get(run.path.name, {}).get("label") == label}
        point = Point(label, baseline=None if baseline == label else baseline, paper=entry.get("paper"))
        point.config = next((run.config for run in mine.values() if run.config), {})
        gaps += _fill(point, [_with_reason(run, jobs[name]) for name, run in mine.items()])
        gaps += [
            Gap(label, job["seed"], None, "was not run")
            for name, job in jobs.items()
            if job["label"] == label and name not in mine
        ]
        points.append(point)
    gaps += [
        Gap(run.path.name, run.seed, run.path, "belongs to no point of study.json")
        for run in runs
        if run.path.name not in jobs
    ]
    return Study(str(plan.get("name", "study")), points, gaps)


def _with_reason(run: Run, job: Mapping[str, Any]) -> Run:
    """Return an unfinished run with the ledger's reason, which knows of kills that the run could not record."""
    if run.problem is None or not job.get("reason"):
        return run
    return replace(run, problem=f"{job['status']}: {job['reason']}")
