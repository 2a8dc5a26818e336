"""The rows of a report: per point what was measured, how sure it is, and what the paper printed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal, NamedTuple

import numpy as np

from senet.analysis.labels import flatten, settings
from senet.analysis.paper import PaperFigure, paper_figure, paper_figures
from senet.analysis.runs import At, Point, Predictions, Study
from senet.analysis.statistics import (
    Difference,
    ImageComparison,
    Spread,
    compare,
    compare_images,
    describe,
)
from senet.nn import SEConfig

ABLATIONS = {
    "reduction": ("T10",),
    "squeeze": ("T11", "T16"),
    "gate": ("T12",),
    "stages": ("T13",),
    "placement": ("T14", "T15"),
}
"""SE axes to the paper's tables (v4) about them."""
NETWORKS = ("T2", "T3", "T4", "T5")
"""The paper's tables of networks and their plain twins."""


@dataclass(frozen=True)
class Row:
    """One line of the table; what a point without finished runs lacks is None.

    Attributes:
        label: of the point.
        baseline: label of the point it is compared with.
        is_baseline: whether another point is compared with it.
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
    is_baseline: bool
    errors: Mapping[int, float]
    top1: Spread | None
    top5: Spread | None
    difference: Difference | None
    images: ImageComparison | None
    parameters: int | None
    macs: int | None
    rate: float | None
    reduction: int | None
    paper: PaperFigure | None
    paper_gain: float | None


def build_rows(study: Study, at: At) -> list[Row]:
    """Return the rows of a study in its order."""
    keys = paper_keys(study)
    baselines = {point.baseline for point in study.points}
    return [
        _row(point, study.point(point.baseline), point.label in baselines, keys, at) for point in study.points
    ]


def _row(point: Point, baseline: Point | None, is_baseline: bool, keys: Mapping[str, str], at: At) -> Row:
    runs = point.runs
    errors = {seed: run.error(at) for seed, run in runs.items()}
    base = {seed: run.error(at) for seed, run in baseline.runs.items()} if baseline else {}
    first = next(iter(runs.values()), None)
    rates = [run.summary["images_per_second"] for run in runs.values() if run.summary["images_per_second"]]
    paper = paper_figure(keys[point.label]) if point.label in keys else None
    paper_base = paper_figure(keys[baseline.label]) if baseline and baseline.label in keys else None
    return Row(
        label=point.label,
        baseline=point.baseline,
        is_baseline=is_baseline,
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


def _paper_gain(paper: PaperFigure | None, base: PaperFigure | None) -> float | None:
    if paper is None or base is None or paper.key == base.key:
        return None
    # The paper sets its CIFAR networks beside cited ones; otherwise recipes must agree.
    comparable = paper.recipe == base.recipe or (paper.version, paper.table) == (base.version, base.table)
    if not comparable or paper.top1_err is None or base.top1_err is None:
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
    """Return the published figure's key (v4) of every point that has one.

    ``study.json`` names them; otherwise they follow from the one SE axis in which the points differ, or else
    from the names of the networks. Points that differ in more, as the trials of a search, have none.
    """
    named = {point.label: point.paper for point in study.points if point.paper}
    if named:
        return named
    if len({_besides_network(point.config) for point in study.points if point.config}) > 1:
        return {}
    known = [point.config["se"] for point in study.points if point.config.get("se")]
    varying = [axis for axis in (known[0] if known else {}) if len({str(se[axis]) for se in known}) > 1]
    if len(varying) > 1 or not set(varying) <= ABLATIONS.keys():
        return {}
    found = {p.label: _ablation(p, varying[0]) if varying else _network(p) for p in study.points if p.config}
    return {label: figure.key for label, figure in found.items() if figure is not None}


def _besides_network(config: Mapping[str, Any]) -> str:
    """Return what a configuration says of the training alone, as text to compare."""
    network = ("model", "se", "seed", "name", "runs_dir", "logger")
    return str({key: value for key, value in config.items() if key not in network})


def _ablation(point: Point, axis: str) -> PaperFigure | None:
    """Return the row of the ablation's tables whose SE block has the same value on ``axis``."""
    if not point.config.get("se"):
        return paper_figure("none")
    value = getattr(SEConfig(**point.config["se"]), axis)
    figures = [figure for figure in paper_figures() if figure.version == "v4"]
    for table in ABLATIONS[axis]:
        for figure in figures:
            se = figure.se_config() if figure.table == table else None
            # The row of r = 16 in Table 16 has the squeeze of Table 11's "avg"; the first table found is meant.
            if se is not None and getattr(se, axis) == value:
                return figure
    return None


def _network(point: Point) -> PaperFigure | None:
    """Return the row of the network in the paper's main tables, of the same data if there is one."""
    data, name = point.config["data"]["name"], point.config["model"]["name"]
    rows = [
        figure
        for figure in paper_figures()
        if figure.version == "v4"
        and figure.table in NETWORKS
        and figure.model == name
        and not figure.key.endswith("_original")
    ]
    return min(rows, key=lambda figure: figure.dataset != data, default=None)


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
        Column("top-1 err, %", "paper", lambda row: _number(row, "top1_err", ".2f")),
        Column("difference", "paper", lambda r: f"{r.paper_gain:+.2f}" if r.paper_gain is not None else ""),
        Column("params, M", "paper", lambda row: _number(row, "params_m", ".1f"), brief=False),
        Column("table", "paper", lambda row: source(row.paper) if row.paper else ""),
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
        return "baseline" if row.is_baseline else ""
    return row.difference.verdict if row.difference else "baseline missing"


def _image_p(row: Row) -> str:
    return p_value(row.images.p) if row.images else ""


def _image_interval(row: Row) -> str:
    return _interval(row.images.interval) if row.images else ""


def _number(row: Row, name: str, form: str) -> str:
    value = getattr(row.paper, name) if row.paper else None
    return format(value, form) if value is not None else ""


def source(paper: PaperFigure) -> str:
    """Return version and table: "v4 T10"."""
    return f"{paper.version} {paper.table}"


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
            shared[name] = ", ".join(sorted(values)) if len(values) < 4 else f"{len(values)} networks"
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
