"""The rows of a report: per point what was measured, how sure it is, and what the paper printed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal, NamedTuple

import numpy as np

from senet.analysis.labels import flatten, settings
from senet.analysis.paper import Published, published
from senet.analysis.runs import At, Point, Predictions, Study
from senet.analysis.statistics import (
    Difference,
    ImageComparison,
    Spread,
    compare,
    compare_images,
    describe,
)
from senet.errors import UserError

AXES = {
    "reduction": ("r{}", {}),
    "squeeze": ("squeeze_{}", {"none": "nosqueeze"}),
    "gate": ("excite_{}", {}),
    "placement": ("se_{}", {"conv3x3": "se_3x3"}),
}
"""SE axes to the keys of the published ablations; the second of each are keys of another form."""


@dataclass(frozen=True)
class Row:
    """One line of the table; what a point without finished runs lacks is None.

    Attributes:
        label: of the point.
        baseline: label of the point it is compared with.
        errors: top-1 error in percent by seed.
        top1: mean, sd and n of ``errors``.
        top5: the same of the top-5 error.
        difference: of top-1 error to the baseline, over seeds.
        images: the same over images, from the predictions.
        parameters: learnable parameters.
        macs: multiply-adds of one image.
        rate: images per second in training, median over seeds.
        reduction: r, or None without SE.
        paper: the published figure.
        paper_gain: its top-1 error minus the published baseline's, in points.
    """

    label: str
    baseline: str | None
    errors: Mapping[int, float]
    top1: Spread | None
    top5: Spread | None
    difference: Difference | None
    images: ImageComparison | None
    parameters: int | None
    macs: int | None
    rate: float | None
    reduction: int | None
    paper: Published | None
    paper_gain: float | None


def build_rows(study: Study, at: At) -> list[Row]:
    """Return the rows of a study in its order."""
    keys = paper_keys(study)
    return [_row(point, study.point(point.baseline), keys, at) for point in study.points]


def _row(point: Point, baseline: Point | None, keys: Mapping[str, str], at: At) -> Row:
    runs = point.runs
    errors = {seed: run.error(at) for seed, run in runs.items()}
    base = {seed: run.error(at) for seed, run in baseline.runs.items()} if baseline else {}
    first = next(iter(runs.values()), None)
    rates = [run.summary["images_per_second"] for run in runs.values() if run.summary["images_per_second"]]
    paper = published(keys[point.label]) if point.label in keys else None
    paper_base = published(keys[baseline.label]) if baseline and baseline.label in keys else None
    return Row(
        label=point.label,
        baseline=point.baseline,
        errors=errors,
        top1=describe(list(errors.values())) if errors else None,
        top5=describe([run.error(at, 5) for run in runs.values()]) if runs else None,
        difference=compare(errors, base) if errors and base else None,
        images=_over_images(point, baseline, at) if baseline else None,
        parameters=int(first.summary["parameters"]) if first else None,
        macs=int(first.summary["macs"]) if first else None,
        rate=float(median(rates)) if rates else None,
        reduction=point.reduction,
        paper=paper,
        paper_gain=_paper_gain(paper, paper_base),
    )


def _paper_gain(paper: Published | None, base: Published | None) -> float | None:
    if paper is None or base is None or paper.recipe != base.recipe or paper.key == base.key:
        return None
    return round(paper.top1_err - base.top1_err, 4)


def _over_images(point: Point, baseline: Point, at: At) -> ImageComparison | None:
    """Compare the predictions of the common seeds, if they are of the same images."""
    pairs = []
    for seed in sorted(point.runs.keys() & baseline.runs.keys()):
        ours, theirs = point.runs[seed].predictions(at), baseline.runs[seed].predictions(at)
        if ours is not None and theirs is not None:
            pairs.append((ours, theirs))
    if not pairs or not all(_same_images(table, pairs[0][0]) for pair in pairs for table in pair):
        return None
    return compare_images(np.stack([a.right for a, _ in pairs]), np.stack([b.right for _, b in pairs]))


def _same_images(a: Predictions, b: Predictions) -> bool:
    return np.array_equal(a.ids, b.ids) and np.array_equal(a.labels, b.labels)


def paper_keys(study: Study) -> dict[str, str]:
    """Return the published figure's key of every point that has one.

    ``study.json`` names them; otherwise they follow from the one SE axis in which the points differ.
    """
    named = {point.label: point.paper for point in study.points if point.paper}
    if named:
        return named
    ses = [point.config.get("se") for point in study.points]
    known = [se for se in ses if se]
    varying = [axis for axis in (known[0] if known else {}) if len({str(se[axis]) for se in known}) > 1]
    if len(varying) != 1:
        return {}
    keys = {}
    for point, se in zip(study.points, ses, strict=True):
        key = _axis_key(varying[0], se[varying[0]]) if se else "none"
        if key is not None and _exists(key):
            keys[point.label] = key
    return keys


def _axis_key(axis: str, value: Any) -> str | None:
    if axis == "stages":
        if value is None:
            return "stage_all"
        return f"stage{value[0]}" if len(value) == 1 else None
    if axis not in AXES:
        return None
    form, others = AXES[axis]
    return others.get(str(value), form.format(value))


def _exists(key: str) -> bool:
    try:
        published(key)
    except UserError:
        return False
    return True


# Columns --------------------------------------------------------------------------------------------------


class Column(NamedTuple):
    """A column of the table for people.

    Attributes:
        title: its heading.
        group: "ours" or "paper".
        cell: the text of a row; "" where there is nothing to say.
        detail: what follows the cell, under it where there is room: its interval.
        brief: whether the table on a terminal has it.
    """

    title: str
    group: Literal["ours", "paper"]
    cell: Callable[[Row], str]
    detail: Callable[[Row], str] = lambda row: ""
    brief: bool = True

    def text(self, row: Row) -> str:
        """Return cell and detail on one line."""
        return f"{self.cell(row)} {self.detail(row)}".strip()


def columns(rows: list[Row]) -> list[Column]:
    """Return the columns; the paper's only where it has a figure."""
    ours = [
        Column("point", "ours", lambda row: row.label),
        Column("top-1 err, %", "ours", lambda row: _spread(row.top1)),
        Column("top-5 err, %", "ours", lambda row: _spread(row.top5), brief=False),
        Column("n", "ours", lambda row: str(row.top1.n) if row.top1 else "0"),
        Column("difference [95 %]", "ours", _estimate, _seed_interval),
        Column("verdict", "ours", _verdict),
        Column("McNemar p [bootstrap 95 %]", "ours", _image_p, _image_interval, brief=False),
        Column("parameters", "ours", lambda row: count(row.parameters)),
        Column("MACs", "ours", lambda row: count(row.macs)),
        Column("images/s", "ours", lambda row: f"{row.rate:,.0f}" if row.rate else ""),
    ]
    if not any(row.paper for row in rows):
        return ours
    return [
        *ours,
        Column("top-1 err, %", "paper", lambda row: f"{row.paper.top1_err:.2f}" if row.paper else ""),
        Column("difference", "paper", lambda r: f"{r.paper_gain:+.2f}" if r.paper_gain is not None else ""),
        Column("params, M", "paper", _paper_parameters, brief=False),
        Column("table", "paper", lambda row: row.paper.source if row.paper else ""),
    ]


def _spread(spread: Spread | None) -> str:
    if spread is None:
        return "missing"
    return f"{spread.mean:.2f}" + (f" ± {spread.sd:.2f}" if spread.sd is not None else "")


def _estimate(row: Row) -> str:
    return f"{row.difference.estimate:+.2f}" if row.difference else ""


def _interval(interval: tuple[float, float] | None) -> str:
    return f"[{interval[0]:+.2f}, {interval[1]:+.2f}]" if interval else ""


def _seed_interval(row: Row) -> str:
    return _interval(row.difference.interval) if row.difference else ""


def _verdict(row: Row) -> str:
    if row.top1 is None:
        return "no finished run"
    if row.baseline is None:
        return "baseline"
    return row.difference.verdict if row.difference else "baseline missing"


def _image_p(row: Row) -> str:
    return p_value(row.images.p) if row.images else ""


def _image_interval(row: Row) -> str:
    return _interval(row.images.interval) if row.images else ""


def _paper_parameters(row: Row) -> str:
    return f"{row.paper.params_M:.1f}" if row.paper and row.paper.params_M is not None else ""


def p_value(p: float) -> str:
    """Return a p value as people write it."""
    return "< 0.0001" if p < 1e-4 else f"{p:.4f}" if p < 0.01 else f"{p:.2f}"


def count(number: int | None) -> str:
    """Return a count with its unit prefix: 277.9 k, 28.09 M, 3.86 G."""
    if number is None:
        return ""
    for size, unit in ((10**9, " G"), (10**6, " M"), (10**3, " k")):
        if number >= size:
            return f"{number / size:.4g}{unit}"
    return str(number)


# What is common -------------------------------------------------------------------------------------------

COMMON = {
    "model.name": "network",
    "data.name": "data",
    "data.preprocessing.size": "image size, px",
    "trainer.max_epochs": "epochs",
    "data.batch_size": "batch per device",
    "optimizer.name": "optimiser",
    "optimizer.lr": "lr",
    "schedule.name": "schedule",
    "trainer.devices": "devices",
}


def common_settings(study: Study) -> dict[str, str]:
    """Return what all points share, for the report's head."""
    flat = [flatten(settings(point.config)) for point in study.points if point.config]
    shared = {}
    for key, name in COMMON.items():
        values = {str(f.get(key)) for f in flat}
        if flat and (len(values) == 1 or key == "model.name"):
            shared[name] = ", ".join(dict.fromkeys(str(f.get(key)) for f in flat))
    runs = [run for point in study.points for run in point.runs.values()]
    shared["weights"] = (
        " and ".join(sorted({"averaged" if r.weights == "ema" else "raw" for r in runs})) or "-"
    )
    shared["validation images"] = ", ".join(sorted({f"{r.summary['data']['val_images']:,}" for r in runs}))
    machines = {_machine(run.record.get("environment", {})) for run in runs}
    shared["machine"] = "several, images/s do not compare" if len(machines) > 1 else "".join(machines)
    return {name: value for name, value in shared.items() if value}


def _machine(environment: Mapping[str, Any]) -> str:
    gpus = [
        str(gpu.get("name", gpu)) if isinstance(gpu, dict) else str(gpu)
        for gpu in environment.get("gpus") or ()
    ]
    return ", ".join(gpus) if gpus else f"CPU, {environment.get('cpu_cores', '?')} cores"
