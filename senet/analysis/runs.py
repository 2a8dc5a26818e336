"""Run directories in: each read as it lies, grouped into the points of a study, none passed over silently."""

import glob
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from senet.analysis.labels import (
    as_plain,
    label_points,
    order_key,
    reduction_of,
    settings,
    varying,
    with_new_settings,
)
from senet.errors import UserError, did_you_mean
from senet.ledger import Job, Ledger
from senet.models import plain_twin
from senet.rundir import PREFIX, Predictions, RunDir, Which

FIGURES = {"best", "last", "parameters", "macs", "images_per_second", "data"}
"""What a report reads of a summary."""


@dataclass(eq=False)
class Run:
    """One run directory.

    Attributes:
        directory: where its files are.
        config: the resolved configuration; empty if it cannot be read.
        record: ``run.json``.
        summary: ``summary.json`` of a finished run, else empty.
        problem: why the run has no figures, or None.
        images: what tells its validation images from those of other runs.
    """

    directory: RunDir
    config: Mapping[str, Any] = field(default_factory=dict)
    record: Mapping[str, Any] = field(default_factory=dict)
    summary: Mapping[str, Any] = field(default_factory=dict)
    problem: str | None = None
    images: str = ""
    _predictions: dict[Which, Predictions | None] = field(default_factory=dict, repr=False)

    @property
    def path(self) -> Path:
        """The directory itself."""
        return self.directory.path

    @property
    def evaluation(self) -> bool:
        """Whether it was no training, but what ``senet eval`` leaves."""
        return self.record.get("task") == "eval"

    @property
    def seed(self) -> int:
        """The run's seed."""
        return int(self.record.get("seed", self.config.get("seed", 0)))

    @property
    def weights(self) -> str:
        """The weights a run is judged by: "ema" if it keeps an average, else "raw"."""
        return "ema" if f"{PREFIX['ema']}/top1" in self.summary["best"] else "raw"

    @property
    def unreadable(self) -> int:
        """Validation images that cannot be read and count as wrong."""
        return int(self.summary["last"].get("val/unreadable", 0))

    def error(self, at: Which, k: Literal[1, 5] = 1) -> float:
        """Return the top-k error in percent, of the last epoch or of the best one by top-1."""
        table = self.predictions(at) if (at, k) == ("best", 5) else None
        if (
            table is not None and not np.isnan(table.top5).any()
        ):  # the summary has the best top-5 of any epoch
            return 100 * (1 - float(table.top5.sum()) / (len(table.top5) + self.unreadable))
        return 100 - float(self.summary[at][f"{PREFIX[self.weights]}/top{k}"])

    def predictions(self, at: Which) -> Predictions | None:
        """Return what was predicted for every validation image, or None if the file is missing."""
        if at not in self._predictions:
            self._predictions[at] = self.directory.predictions(at, self.weights)
        return self._predictions[at]


@dataclass(eq=False)
class Point:
    """Runs that differ in nothing but the seed.

    Attributes:
        label: what sets it apart from the other points.
        config: the configuration of one of its runs; empty if there is none.
        runs: the finished runs by seed.
        baseline: label of the point it is compared with, or None.
        paper: key of the published figure, or None.
        images: what its validation images are called; points with other images are not compared with it.
    """

    label: str
    config: Mapping[str, Any] = field(default_factory=dict)
    runs: dict[int, Run] = field(default_factory=dict)
    baseline: str | None = None
    paper: str | None = None
    images: str = ""

    @property
    def reduction(self) -> int | None:
        """The reduction ratio r; None without SE, and of a rival that has none."""
        return reduction_of(self.config.get("se"))


class Gap(NamedTuple):
    """A run that is not in the figures, and why; ``missing`` unless another stands in or a search pruned it."""

    label: str
    seed: int
    path: Path | None
    reason: str
    missing: bool = True


@dataclass
class Study:
    """Points in the order of a table, and what is missing.

    Attributes:
        name: of the study.
        points: those on the same validation images stand together.
        gaps: missing and failed runs.
        others: keys of the settings in which points differ that no label names.
        inferred: whether nobody named a baseline and the points' own were found.
    """

    name: str
    points: list[Point]
    gaps: list[Gap]
    others: list[str] = field(default_factory=list)
    inferred: bool = False

    def point(self, label: str | None) -> Point | None:
        """Return the point of that label."""
        return next((point for point in self.points if point.label == label), None)


def collect(paths: Sequence[str | Path], baseline: str | None = None, at: Which = "last") -> Study:
    """Read every run directory at or below ``paths`` (directories or globs).

    A directory with ``study.json`` gives labels, order, baseline and the paper's keys; otherwise points are
    what the configurations say. Where no baseline is named it is the plain twin, or else the first point; the
    trials of a search, which differ in everything, are not compared.

    Raises:
        UserError: if nothing is found, or ``baseline`` is no point.
    """
    only = Path(paths[0]).resolve() if len(paths) == 1 and Path(paths[0]).is_dir() else None
    ledger = Ledger.open(only) if only is not None and Ledger.lies_in(only) else None
    planned = ledger is not None and bool(ledger.points)  # a search that has drawn nothing has no points
    runs = [run for run in (read_run(path, at) for path in find_runs(paths)) if not run.evaluation]
    if not runs and not planned:
        raise UserError(f"there is no run directory in {', '.join(map(str, paths))}")
    _identify_images(runs, at)
    study = _planned(ledger, runs) if ledger and planned else _inferred(runs, only.name if only else "runs")
    _name_images(study)
    if baseline is not None:
        _compare_with(study.points, baseline)
    elif not any(point.baseline for point in study.points) and not (ledger and ledger.head.get("search")):
        _infer_baselines(study.points)
        study.inferred = any(point.baseline for point in study.points)
    return study


# Directories ----------------------------------------------------------------------------------------------


def find_runs(paths: Iterable[str | Path]) -> list[Path]:
    """Return the run directories at or below ``paths``, each once, oldest name first."""
    found: dict[Path, Path] = {}
    for given in map(str, paths):
        # The name of a folder may have brackets of its own.
        for path in [given] if os.path.isdir(given) else sorted(glob.glob(given)) or [given]:
            if not os.path.isdir(path):
                raise UserError(f"{path}: there is no such directory")
            for run in _walk(Path(path)):
                found.setdefault(run.resolve(), run)
    return sorted(found.values(), key=lambda run: run.name)


def _walk(path: Path) -> Iterator[Path]:
    """Find runs, but none that lies in another or behind a link, as ``latest`` does."""
    for folder, children, _ in os.walk(path):
        if RunDir(Path(folder)).record_file.is_file():
            children.clear()
            yield Path(folder)


def read_run(path: Path, at: Which = "last") -> Run:
    """Read one run directory; a broken or unfinished one gets a ``problem``."""
    run = Run(RunDir(path))
    try:
        run.record = dict(run.directory.record())
        run.config = with_new_settings(run.directory.config())
        run.problem = _unfinished(run)
        if run.problem is None:
            run.summary = run.directory.summary()
    except Exception as error:  # whatever is wrong with one directory, the others are still counted
        run.problem = f"cannot be read: {type(error).__name__}"
    if run.problem is None:
        run.problem = _contradiction(run, at)
    return run


def _unfinished(run: Run) -> str | None:
    status = run.record.get("status", "unknown")
    if status == "failed":
        return f"failed: {run.record.get('error') or 'no reason recorded'}"
    if status in ("running", "starting"):
        return "unfinished: still running, or killed"
    if status != "finished":
        return str(status)
    return None if run.directory.summary_file.is_file() else "finished without summary.json"


def _contradiction(run: Run, at: Which) -> str | None:
    """Say so if figures are missing, or if the summary and the predictions are not of the same network."""
    if absent := FIGURES - run.summary.keys():
        return f"summary.json lacks {', '.join(sorted(absent))}"
    if run.summary[at] == {}:
        return "trained without validation: it has no figures"
    try:
        error, _, table = run.error(at), run.error(at, 5), run.predictions(at)
        unreadable, _ = run.unreadable, int(run.summary["data"]["val_images"])
    except (KeyError, TypeError, ValueError) as reason:
        return f"summary.json or predictions cannot be understood: {type(reason).__name__} {reason}"
    if table is not None:
        counted = 100 * (1 - float(table.right.sum()) / (len(table.right) + unreadable))
        if abs(counted - error) > 1e-3:
            return f"summary.json says {error:.3f} % top-1 error, the predictions {counted:.3f} %"
    return None


# Points ---------------------------------------------------------------------------------------------------


def _identify_images(runs: Sequence[Run], at: Which) -> None:
    """Tell finished runs' validation images apart: by names and labels, or where these are lost by their listing."""
    listed: dict[str, str] = {}
    finished = [run for run in runs if run.problem is None]
    for run in sorted(finished, key=lambda run: run.predictions(at) is None):
        data, table = run.summary["data"], run.predictions(at)
        listing = data.get("manifest", {}).get("val", "")
        if table is None:
            run.images = listed.get(listing, f"{data['val_images']} {listing}")
            continue
        digest = hashlib.blake2b(digest_size=8)
        for name, label in zip(table.images, table.labels, strict=True):
            digest.update(f"{name}\0{label}\n".encode(errors="surrogateescape"))
        run.images = f"{len(table.images)} {digest.hexdigest()}"
        if listing:
            listed[listing] = run.images


def _inferred(runs: Sequence[Run], name: str) -> Study:
    """Group runs by configuration; label each group by what differs."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        if run.config:
            key = json.dumps(settings(run.config), sort_keys=True, default=str)
            groups.setdefault(key, []).append(run)
    parted = [part for group in groups.values() for part in _by_images(group)]
    configs = [part[0].config for part in parted]
    labels, others = label_points(configs)
    points = [Point(label, config) for label, config in zip(labels, configs, strict=True)]
    gaps = [gap for point, part in zip(points, parted, strict=True) for gap in _fill(point, part)]
    gaps += [
        Gap(run.path.name, run.seed, run.path, run.problem or "has no configuration")
        for run in runs
        if not run.config
    ]
    points.sort(key=lambda point: order_key(point.label, point.config))
    return Study(name, points, gaps, others)


def _by_images(runs: Sequence[Run]) -> list[list[Run]]:
    """Part runs of one configuration whose data changed between them; the unfinished go with the last."""
    parts: dict[str, list[Run]] = {}
    for run in runs:
        if run.problem is None:
            parts.setdefault(run.images, []).append(run)
    last = list(parts.values())[-1] if parts else parts.setdefault("", [])
    last += [run for run in runs if run.problem is not None]
    return list(parts.values())


def _name_images(study: Study) -> None:
    """Give each point its validation images' name, and let those with the same stand together."""
    names: dict[str, str] = {}
    for point in study.points:
        if not point.runs:
            continue
        run = list(point.runs.values())[-1]
        if (found := run.images) not in names:
            name = f"{run.config['data']['name']}, {int(run.summary['data']['val_images']):,} images"
            alike = sum(other.startswith(name) for other in names.values())
            names[found] = f"{name} #{alike + 1}" if alike else name
        point.images = names[found]
    for point in study.points:
        # Without a finished run nobody knows: those of the same data, or else the first.
        data = point.config.get("data", {}).get("name", "")
        same = [p.images for p in study.points if p.images and p.config["data"]["name"] == data]
        point.images = point.images or next(iter([*same, *names.values()]), "")
    order = list(names.values())
    study.points.sort(key=lambda point: order.index(point.images) if point.images else 0)


def _planned(ledger: Ledger, runs: Sequence[Run]) -> Study:
    """Give every run to the point whose job it is; jobs without a finished run become gaps."""
    points, gaps = [], []
    for row in ledger.points.values():
        jobs = {job.run: job for job in ledger.jobs.values() if job.label == row.label}
        mine = {run.path.name: run for run in runs if run.path.name in jobs}
        for name, run in mine.items():
            run.problem = _reason(run, jobs[name])
        config = next((run.config for run in mine.values() if run.config), {})
        baseline = row.baseline or ledger.head.get("baseline")
        point = Point(row.label, config, {}, None if baseline == row.label else baseline, row.paper)
        gaps += _fill(point, list(mine.values()))
        gaps += [Gap(row.label, jobs[n].seed, None, "was not run") for n in jobs if n not in mine]
        points.append(point)
    known = {job.run for job in ledger.jobs.values()}
    gaps += [
        Gap(run.path.name, run.seed, run.path, "belongs to no point of study.json")
        for run in runs
        if run.path.name not in known
    ]
    # A trial's label does not say what was drawn for it.
    others = varying([point.config for point in points]) if ledger.head.get("search") else []
    return Study(str(ledger.head.get("name", "study")), points, gaps, others)


def _reason(run: Run, job: Job) -> str | None:
    """Return an unfinished run's problem in the words of the ledger, which knows of kills that no run records."""
    return f"{job.status}: {job.reason}" if run.problem is not None and job.reason else run.problem


def _fill(point: Point, runs: Sequence[Run]) -> list[Gap]:
    """Give a point the newest finished run of each seed, all on the same images; return the rest with reasons."""
    gaps = []
    images = Counter(run.images for run in reversed(runs) if run.problem is None).most_common(1)
    for run in runs:
        if run.problem is None and run.images != images[0][0]:
            run.problem = "validated on other images than most runs of its point"
    for seed in sorted({run.seed for run in runs}):
        attempts = [run for run in runs if run.seed == seed]
        finished = [run for run in attempts if run.problem is None]
        if finished:
            *older, point.runs[seed] = finished
            gaps += [Gap(point.label, seed, r.path, "a newer run of this seed is used", False) for r in older]
        else:
            reason = attempts[-1].problem or ""
            wanted = not reason.startswith("pruned")  # by a search, which has all that it wanted of it
            gaps.append(Gap(point.label, seed, attempts[-1].path, reason, wanted))
    return gaps


def _compare_with(points: Sequence[Point], baseline: str) -> None:
    labels = [point.label for point in points]
    if baseline not in labels:
        raise UserError(f'there is no point "{baseline}"{did_you_mean(baseline, labels)}')
    for point in points:
        point.baseline = None if point.label == baseline else baseline


def _infer_baselines(points: Sequence[Point]) -> None:
    """Compare an SE network with its plain twin, trained alike, or where there is none with the first point."""
    known = [point for point in points if point.config]
    for point in known:
        same = [p for p in known if p.images == point.images]
        alike = [p for p in same if _trunk(p) == _trunk(point)]
        plain = [p for p in alike if p.config.get("se") is None]
        twins = [p for p in plain if as_plain(p.config) == as_plain(point.config)] or plain
        if point in plain:
            continue
        if len(twins) == 1:
            point.baseline = twins[0].label
        elif not plain and point is not alike[0] and alike[0] is same[0]:
            point.baseline = alike[0].label


def _trunk(point: Point) -> str:
    return plain_twin(str(point.config["model"]["name"]))
