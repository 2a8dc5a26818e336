"""The table of a report: per point what was measured, how sure it is, and what the paper printed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from senet.analysis.labels import varying
from senet.analysis.paper import PaperFigure, paper_figure, paper_figures
from senet.analysis.runs import Point, Study
from senet.analysis.statistics import (
    Difference,
    ImageComparison,
    Spread,
    compare,
    compare_images,
    describe,
)
from senet.nn import SEConfig
from senet.rundir import Which
from senet.table import Column, with_prefix

OURS, PAPER = "ours", "paper"
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
class ReportRow:
    """One point of a study; what a point without finished runs lacks is None.

    Attributes:
        point: what is measured.
        label: of the point.
        baseline: label of the point it is compared with.
        comparable: whether that has the same validation images.
        is_baseline: whether another point is compared with it.
        errors: top-1 error in percent by seed.
        top1: mean, sd and n of ``errors``.
        top5: the same of the top-5 error.
        difference: of top-1 error to the baseline, over seeds.
        images: the same over images, from the predictions.
        parameters: learnable parameters.
        macs: multiply-adds of one image.
        rate: images per second in training, median over seeds.
        paper: the published figure.
        paper_gain: its top-1 error minus the published baseline's, in points.
    """

    point: Point
    label: str
    baseline: str | None
    comparable: bool
    is_baseline: bool
    errors: Mapping[int, float]
    top1: Spread | None
    top5: Spread | None
    difference: Difference | None
    images: ImageComparison | None
    parameters: int | None
    macs: int | None
    rate: float | None
    paper: PaperFigure | None
    paper_gain: float | None

    def record(self) -> dict[str, object]:
        """Return every number unrounded, for programs; errors in percent, differences in points."""
        low, high = (self.difference and self.difference.interval) or (None, None)
        image_low, image_high = self.images.interval if self.images else (None, None)
        return {
            "point": self.label,
            "validation": self.point.images,
            "baseline": self.baseline,
            "seeds": " ".join(map(str, sorted(self.errors))),
            "n": len(self.errors),
            **_values(self.top1, top1_err="mean", top1_err_sd="sd"),
            **_values(self.top5, top5_err="mean", top5_err_sd="sd"),
            **_values(self.difference, difference="estimate"),
            "difference_low": low,
            "difference_high": high,
            **_values(self.difference, difference_method="method", difference_n="n", verdict="verdict"),
            **_values(self.images, only_ours="only_ours", only_baseline="only_baseline", mcnemar_p="p"),
            "bootstrap_low": image_low,
            "bootstrap_high": image_high,
            "parameters": self.parameters,
            "macs": self.macs,
            "images_per_second": self.rate,
            **_values(self.paper, paper_key="key", paper_source="source"),
            "paper_network": f"{self.paper.label}, {self.paper.dataset}" if self.paper else None,
            **_values(
                self.paper, paper_recipe="recipe", paper_top1_err="top1_err", paper_top5_err="top5_err"
            ),
            "paper_difference": self.paper_gain,
            **_values(self.paper, paper_params_m="params_m", paper_gmacs="gmacs"),
        }


def _values(found: object | None, **attributes: str) -> dict[str, object]:
    """Return the attributes of what was found, under their names in a record; None each where nothing was."""
    return {name: found and getattr(found, attribute) for name, attribute in attributes.items()}


def build_rows(study: Study, at: Which) -> list[ReportRow]:
    """Return the rows of a study in its order."""
    figures = {label: paper_figure(key) for label, key in paper_keys(study).items()}
    baselines = {point.baseline for point in study.points}
    rows = []
    for point in study.points:
        baseline, runs = study.point(point.baseline), point.runs
        errors = {seed: run.error(at) for seed, run in runs.items()}
        comparable = baseline is None or baseline.images == point.images
        if not comparable:
            baseline = None
        base = {seed: run.error(at) for seed, run in baseline.runs.items()} if baseline else {}
        summary = next(iter(runs.values())).summary if runs else None
        rates = [r.summary["images_per_second"] for r in runs.values() if r.summary["images_per_second"]]
        paper = figures.get(point.label)
        row = ReportRow(
            point=point,
            label=point.label,
            baseline=point.baseline,
            comparable=comparable,
            is_baseline=point.label in baselines,
            errors=errors,
            top1=describe(list(errors.values())) if errors else None,
            top5=describe([run.error(at, 5) for run in runs.values()]) if runs else None,
            difference=compare(errors, base) if errors and base else None,
            images=_over_images(point, baseline, at) if baseline else None,
            parameters=int(summary["parameters"]) if summary else None,
            macs=int(summary["macs"]) if summary else None,
            rate=float(median(rates)) if rates else None,
            paper=paper,
            paper_gain=_paper_gain(paper, figures.get(baseline.label) if baseline else None),
        )
        rows.append(row)
    return rows


def _paper_gain(paper: PaperFigure | None, base: PaperFigure | None) -> float | None:
    if paper is None or base is None or paper.key == base.key:
        return None
    # The paper sets its CIFAR networks beside cited ones; otherwise recipes must agree.
    comparable = paper.recipe == base.recipe or paper.source == base.source
    if not comparable or paper.top1_err is None or base.top1_err is None:
        return None
    return round(paper.top1_err - base.top1_err, 4)


def _over_images(point: Point, baseline: Point, at: Which) -> ImageComparison | None:
    """Compare the predictions of the common seeds, if they are of the same images."""
    pairs = []
    for seed in sorted(point.runs.keys() & baseline.runs.keys()):
        ours, theirs = point.runs[seed].predictions(at), baseline.runs[seed].predictions(at)
        if ours is not None and theirs is not None:
            pairs.append((ours, theirs))
    if not pairs:
        return None
    first = pairs[0][0]
    for table in (table for pair in pairs for table in pair):
        if not (np.array_equal(table.ids, first.ids) and np.array_equal(table.labels, first.labels)):
            return None
    return compare_images(np.stack([a.right for a, _ in pairs]), np.stack([b.right for _, b in pairs]))


# Columns --------------------------------------------------------------------------------------------------


def report_columns(rows: Sequence[ReportRow]) -> list[Column[ReportRow]]:
    """Return the columns; the baseline's only where there is one, the paper's only where it has a figure."""
    ours: list[Column[ReportRow]] = [
        Column("point", lambda row: row.label, words=True, group=OURS),
        Column("top-1 err, %", lambda row: _spread(row.top1), group=OURS),
        Column("top-5 err, %", lambda row: _spread(row.top5), group=OURS, brief=False),
        Column("n", lambda row: str(len(row.errors)), group=OURS),
    ]
    compared: list[Column[ReportRow]] = [
        Column("difference [95 %]", _difference, _difference_interval, group=OURS),
        Column("verdict", _verdict, words=True, group=OURS, style=_tone),
        Column("McNemar p [bootstrap 95 %]", _image_p, _image_interval, group=OURS, brief=False),
    ]
    cost: list[Column[ReportRow]] = [
        Column("parameters", lambda row: with_prefix(row.parameters), group=OURS),
        Column("MACs", lambda row: with_prefix(row.macs), group=OURS),
        Column("images/s", lambda row: _number(row.rate, ",.0f"), group=OURS),
    ]
    theirs: list[Column[ReportRow]] = [
        Column("top-1 err, %", lambda row: _number(row.paper.top1_err if row.paper else None), group=PAPER),
        Column("difference", lambda row: _number(row.paper_gain, "+.2f"), group=PAPER),
        Column("params, M", _paper_params, group=PAPER, brief=False),
        Column("table", lambda row: row.paper.source if row.paper else "", words=True, group=PAPER),
    ]
    return [
        *ours,
        *(compared if any(row.baseline for row in rows) else ()),
        *cost,
        *(theirs if any(row.paper for row in rows) else ()),
    ]


def _number(value: float | None, form: str = ".2f") -> str:
    return "" if value is None else format(value, form)


def _paper_params(row: ReportRow) -> str:
    return _number(row.paper.params_m if row.paper else None, ".1f")


def _spread(spread: Spread | None) -> str:
    if spread is None:
        return "missing"
    return f"{spread.mean:.2f}" + (f" ± {spread.sd:.2f}" if spread.sd is not None else "")


def _interval(interval: tuple[float, float] | None) -> str:
    return f"[{interval[0]:+.2f}, {interval[1]:+.2f}]" if interval else ""


def _difference(row: ReportRow) -> str:
    return f"{row.difference.estimate:+.2f}" if row.difference else ""


def _difference_interval(row: ReportRow) -> str:
    return _interval(row.difference.interval if row.difference else None)


def _verdict(row: ReportRow) -> str:
    if row.top1 is None:
        return "no finished run"
    if row.baseline is None:
        return "baseline" if row.is_baseline else ""
    if not row.comparable:
        return f"on other images than {row.baseline}"
    return row.difference.verdict if row.difference else "baseline missing"


def _tone(row: ReportRow) -> str:
    verdict = _verdict(row)
    bad = verdict.startswith(("worse", "no fin"))
    return "words good" if verdict.startswith("better") else "words bad" if bad else "words"


def _image_p(row: ReportRow) -> str:
    if row.images is None:
        return ""
    p = row.images.p
    return "< 0.0001" if p < 1e-4 else f"{p:.4f}" if p < 0.01 else f"{p:.2f}"


def _image_interval(row: ReportRow) -> str:
    return _interval(row.images.interval if row.images else None)


# The paper's rows -----------------------------------------------------------------------------------------


def paper_keys(study: Study) -> dict[str, str]:
    """Return the published figure's key (v4) of every point that has one.

    ``study.json`` names them; otherwise they follow from the one SE axis in which the points differ, or else
    from the names of the networks. Points that differ in more, as the trials of a search, have none.
    """
    named = {point.label: point.paper for point in study.points if point.paper}
    if named:
        return named
    configs = [point.config for point in study.points if point.config]
    with_se = [config for config in configs if config.get("se")]
    if any(key.split(".")[0] not in ("model", "se") for key in varying(configs)):
        return {}
    if any(config["se"]["block"] != "se" for config in with_se):  # the paper has no row of a rival
        return {}
    axes = [key.removeprefix("se.") for key in varying(with_se) if key.startswith("se.")]
    if len(axes) > 1 or not set(axes) <= ABLATIONS.keys():
        return {}
    found = {p.label: _ablation(p, axes[0]) if axes else _network(p) for p in study.points if p.config}
    return {label: figure.key for label, figure in found.items() if figure is not None}


def _ablation(point: Point, axis: str) -> PaperFigure | None:
    """Return the row of the ablation's tables whose SE block has the same value on ``axis``."""
    if not point.config.get("se"):
        return paper_figure("none")
    value = getattr(SEConfig(**point.config["se"]), axis)
    # The row of r = 16 in Table 16 has the squeeze of Table 11's "avg"; the first table found is meant.
    for figure in (row for table in ABLATIONS[axis] for row in _in_table(table)):
        se = figure.se_config()
        if se is not None and getattr(se, axis) == value:
            return figure
    return None


def _network(point: Point) -> PaperFigure | None:
    """Return the row of the very network in the paper's main tables, of the same data if there is one."""
    data, name, se = point.config["data"]["name"], point.config["model"]["name"], point.config.get("se")
    network = (name, SEConfig(**se) if se else None)
    printed = [
        row for table in NETWORKS for row in _in_table(table) if (row.model, row.se_config()) == network
    ]
    reproduced = [row for row in printed if not row.key.endswith("_original")]
    return min(reproduced, key=lambda row: row.dataset != data, default=None)


def _in_table(table: str) -> list[PaperFigure]:
    return [row for row in paper_figures() if (row.version, row.table) == ("v4", table)]
