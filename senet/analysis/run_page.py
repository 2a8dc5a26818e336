"""The page of one run or evaluation, made anew from its files: figures, classes, confusions, calibration, mistakes."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from senet.analysis.canvas import MEAN, PLAIN, SEED, as_svg, blank, name_axes, name_lines, save_png
from senet.analysis.labels import reduction_of, trial
from senet.analysis.predictions import (
    BINS,
    SHOWN,
    Calibration,
    ClassResult,
    Counts,
    Pair,
    by_class,
    calibration,
    class_names,
    confident_mistakes,
    confused_pairs,
    confusion,
    worth_showing,
)
from senet.errors import UserError
from senet.files import write_text
from senet.page import render, thumbnail
from senet.rundir import PREFIX, Predictions, RunDir, Which, read_json
from senet.table import Column, Table

if TYPE_CHECKING:
    from senet.data.datasets import FileDataset, MemoryDataset

SERIES = {"train": "training", "val": "validation", "val_ema": "average"}
"""What metrics are prefixed with, to its name."""
MEASURES = {"loss": "loss", "top1": "top-1 error, %"}
"""Metrics to what their curves show."""
SIDE = 224
"""Of the pictures of mistakes, at most, in pixels."""
CLASS_COLUMNS = [
    Column[ClassResult]("class", lambda row: row.name, words=True),
    Column[ClassResult]("images", lambda row: f"{row.images:,}"),
    Column[ClassResult]("right", lambda row: f"{row.right:,}"),
    Column[ClassResult](
        "accuracy, %",
        lambda row: f"{100 * row.right / row.images:.1f}",
        share=lambda row: row.right / row.images,
        style=lambda row: "bar",
    ),
    Column[ClassResult]("most often taken for", lambda row: row.other, words=True, style=lambda row: "words"),
    Column[ClassResult]("times", lambda row: f"{row.times:,}" if row.times else ""),
]
PAIR_COLUMNS = [
    Column[Pair]("class", lambda row: row.label, words=True),
    Column[Pair]("taken for", lambda row: row.predicted, words=True, style=lambda row: "words"),
    Column[Pair]("times", lambda row: f"{row.times:,}"),
    Column[Pair](
        "of its images, %",
        lambda row: f"{100 * row.times / row.images:.1f}",
        share=lambda row: row.times / row.images,
        style=lambda row: "bar",
    ),
]


def write_page(run: RunDir, at: Which, file: Path) -> str:
    """Write the page of a training run or an evaluation; return its first sentence.

    Args:
        run: its predictions are read, and whatever else it holds.
        at: the epoch of a training run whose predictions count.
        file: where to write.

    Raises:
        UserError: if its records or predictions cannot be read.
        OSError: if nothing can be written there.
    """
    record, config = run.record(), run.config()
    evaluated = record.get("task") == "eval"
    figures_file = run.evaluation_file if evaluated else run.summary_file
    found = read_json(figures_file) if figures_file.is_file() else {}
    figures = found if evaluated else found.get("last", {})
    if evaluated:
        label, weights, curves = "eval", found.get("weights") or "raw", []
        title = f"{found.get('model', '')}: evaluation"
    else:
        label, weights = at, "ema" if f"{PREFIX['ema']}/top1" in figures else "raw"
        curves = [(name, draw_curves(run, [name])) for name in MEASURES]
        # Of a job of a study, which all have one name, its point and seed.
        title = str(record.get("title") if "label" in record else config.get("name") or run.path.name)
    try:
        table = run.predictions(label, weights)
    except ValueError as error:
        raise UserError(f"{run.path}: the predictions cannot be read ({error})") from error
    lead, seen = "there are no predictions", {}
    if table is not None:
        lead = _lead(table, int(figures.get("unreadable", figures.get("val/unreadable", 0))))
        seen = _predicted(run, table)
    page = render(
        "run.html",
        title=title,
        lead=lead,
        evaluated=evaluated,
        found=found,
        config=config,
        record=record,
        reduction=reduction_of(config.get("se")),
        at=at,
        weights=weights,
        warning=trial([record]),
        curves=[as_svg(curve, f"training-{name}") for name, curve in curves if curve],
        predicted=table is not None,
        gates=_gates(run),
        se=found.get("se") or config.get("se"),
        path=run.path,
        bins=BINS,
        **seen,
    )
    write_text(file, page)
    return lead


def _lead(table: Predictions, unreadable: int) -> str:
    count = len(table.ids) + unreadable
    parts = [f"top-1 {100 * table.right.sum() / count:.2f} %"]
    if not np.isnan(table.top5).any():
        parts.append(f"top-5 {100 * table.top5.sum() / count:.2f} %")
    parts.append(f"loss {table.loss.mean():.4f}")
    bad = f", of which {unreadable:,} cannot be read and count as wrong" if unreadable else ""
    return f"{', '.join(parts)}, of {count:,} validation images{bad}"


# Sections -------------------------------------------------------------------------------------------------


def _predicted(run: RunDir, table: Predictions) -> dict[str, Any]:
    """Return what the page shows of predictions."""
    classes = class_names(table)
    counts = confusion(table, classes)
    results, found, shown = by_class(counts, classes), calibration(table), worth_showing(counts)
    mistakes = confident_mistakes(table)
    files = {row: list(run.mistakes.glob(f"{table.ids[row]}.*")) for row in mistakes}
    return {
        "classes": len(classes),
        "worst": Table(CLASS_COLUMNS, results[:SHOWN]),
        "others": Table(CLASS_COLUMNS, results[SHOWN:]),
        "matrix": _matrix(counts, classes, shown),
        "turned": max(len(classes[k]) for k in shown) > 3,
        "pairs": Table(PAIR_COLUMNS, confused_pairs(counts, classes)),
        "calibration": as_svg(draw_calibration(table, found), "calibration"),
        "ece": 100 * found.ece,
        "table": table,
        "mistakes": mistakes,
        "pictures": {row: found[0].read_bytes() for row, found in files.items() if found},
        "pictured": run.mistakes.is_dir(),  # of predictions alone there is no picture at all, and no box for it
    }


def _matrix(counts: Counts, classes: Sequence[str], shown: Sequence[int]) -> Table[int]:
    """Return rows of labels over columns of predictions, of the classes ``shown``."""
    others = counts.sum(1) - counts[:, shown].sum(1)

    def column(j: int) -> Column[int]:
        return Column(
            classes[j],
            lambda k: f"{counts[k, j]:,}" if counts[k, j] else "",
            style=lambda k: "heat own" if j == k else "heat",
            share=lambda k: counts[k, j] / max(1, counts[k].sum()),
        )

    columns = [Column[int]("label", lambda k: classes[k], words=True), *map(column, shown)]
    if len(shown) < len(classes):
        columns.append(Column("another class", lambda k: f"{others[k]:,}"))
    return Table(columns, shown)


# Pictures -------------------------------------------------------------------------------------------------


def draw_curves(run: RunDir, measures: Sequence[str] = tuple(MEASURES)) -> Figure | None:
    """Draw the measures of ``metrics.csv`` side by side; None if nothing was logged yet."""
    rows = run.metrics()
    if not rows:
        return None
    figure, axes = blank(4.5 * len(measures), 3.6, columns=len(measures))
    first, last = int(rows[0]["epoch"]) + 1, int(rows[-1]["epoch"]) + 1
    room = 0.04 * (last - first) or 0.5
    for axis, measure in zip(axes, measures, strict=True):
        for (prefix, label), colour in zip(SERIES.items(), (SEED, MEAN, PLAIN), strict=True):
            logged = [row for row in rows if row.get(f"{prefix}/{measure}")]
            values = [float(row[f"{prefix}/{measure}"]) for row in logged]
            if values:
                shown = [100 - value for value in values] if measure == "top1" else values
                epochs = [int(row["epoch"]) + 1 for row in logged]
                marker = "o" if len(values) < 30 else None
                axis.plot(
                    epochs, shown, color=colour, label=label, marker=marker, markersize=5, linewidth=1.6
                )
        name_axes(axis, "epoch", MEASURES[measure])
        axis.set_xlim(first - room, last + room)
        axis.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
        if measure == "top1" and axis.lines:
            axis.set_ylim(0, 1.05 * axis.dataLim.y1 or 1)
    name_lines(figure, axes[0])
    return figure


def draw_calibration(table: Predictions, found: Calibration) -> Figure:
    """Draw accuracy over confidence, and how the confidences are distributed."""
    drawn, (axis,) = blank()
    share = np.full(len(table.confidence), 1 / len(table.confidence))
    axis.hist(
        table.confidence, BINS, range=(0, 1), weights=share, color=SEED, alpha=0.35, label="share of images"
    )
    axis.plot([0, 1], [0, 1], color=PLAIN, linestyle=(0, (5, 3)), linewidth=1.4, label="calibrated")
    axis.plot(found.confidence, found.accuracy, color=MEAN, marker="o", markersize=5, label="accuracy")
    name_axes(axis, "confidence", "accuracy, share of images")
    axis.set(xlim=(0, 1.02), ylim=(0, 1.04))
    name_lines(drawn, axis)
    return drawn


def _gates(run: RunDir) -> dict[str, bytes]:
    """Return the pictures that ``senet gates`` has left in the run's directory, by what they show."""
    words = {"figure6": "Mean gate by class", "figure7": "Mean gate and its sd within a class"}
    files = {said: run.path / "gates" / f"{name}.png" for name, said in words.items()}
    return {said: file.read_bytes() for said, file in files.items() if file.is_file()}


# At the end of a run --------------------------------------------------------------------------------------


def conclude(run: RunDir, table: Predictions | None, data: "FileDataset | MemoryDataset") -> str:
    """Draw what a run leaves to look at; return where the page is, or why there is none: it is not worth a run.

    Args:
        run: finished, all of its figures written.
        table: its predictions on ``data``, by the weights that count; None without validation.
        data: its validation images.
    """
    try:
        if curves := draw_curves(run):
            curves.suptitle(run.path.name, fontsize=10)
            save_png(curves, run.curves_file)
        if table is not None:
            keep_mistakes(run, table, data)
        write_page(run, "last", run.page_file)
        return str(run.page_file)
    except Exception as error:
        return f"it could not be drawn ({type(error).__name__}: {' '.join(str(error).split())})"


def keep_mistakes(run: RunDir, table: Predictions, data: "FileDataset | MemoryDataset") -> None:
    """Write the most confident mistakes to ``mistakes/ID.png`` or ``.jpg``, as the network saw them."""
    from torchvision.transforms.functional import to_pil_image

    from senet.data.datasets import BadImage, MemoryDataset
    from senet.data.files.decoders import decode_reference

    shutil.rmtree(run.mistakes, ignore_errors=True)
    run.mistakes.mkdir()
    for row in confident_mistakes(table):
        index = int(table.ids[row])
        seen = data.images[index] if isinstance(data, MemoryDataset) else data.image(0, index)
        if not isinstance(seen, BadImage):
            pixels = decode_reference(seen, "RGB") if isinstance(seen, bytes) else seen
            picture = thumbnail(to_pil_image(pixels), SIDE)
            kind = "png" if picture.startswith(b"\x89PNG") else "jpg"
            (run.mistakes / f"{index}.{kind}").write_bytes(picture)
