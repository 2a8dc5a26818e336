"""The rows of a report: per point what was measured, how sure it is, and what the paper printed."""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

import numpy as np

from senet.analysis.paper import PaperFigure, paper_figure
from senet.analysis.paper_rows import paper_keys
from senet.analysis.runs import At, Point, Study
from senet.analysis.statistics import (
    Difference,
    ImageComparison,
    Spread,
    compare,
    compare_images,
    describe,
)


@dataclass(frozen=True)
class ReportRow:
    """One point of a study; what a point without finished runs lacks is None.

    Attributes:
        label: of the point.
        validation: the images that it was validated on, in words.
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
        reduction: r, or None without SE.
        paper: the published figure.
        paper_gain: its top-1 error minus the published baseline's, in points.
    """

    label: str
    validation: str
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
    reduction: int | None
    paper: PaperFigure | None
    paper_gain: float | None

    def record(self) -> dict[str, object]:
        """Return every number unrounded, for programs; errors in percent, differences in points."""
        low, high = (self.difference and self.difference.interval) or (None, None)
        image_low, image_high = self.images.interval if self.images else (None, None)
        return {
            "point": self.label,
            "validation": self.validation,
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


def build_rows(study: Study, at: At) -> list[ReportRow]:
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
            label=point.label,
            validation=point.images,
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
            reduction=point.reduction,
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


def _over_images(point: Point, baseline: Point, at: At) -> ImageComparison | None:
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
