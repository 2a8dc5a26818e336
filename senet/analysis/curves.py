"""The training curves of one run, as a picture."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from senet.rundir import RunDir

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SERIES = {"train": "training", "val": "validation", "val_ema": "average"}
"""What metrics are prefixed with, to its name."""
MEASURES = {"loss": "loss", "top1": "top-1 error, %"}
"""Metrics to what their curves show."""


def draw_curves(run: RunDir, measures: Sequence[str] = tuple(MEASURES)) -> "Figure | None":
    """Draw the measures of ``metrics.csv`` side by side; None if nothing was logged yet."""
    from matplotlib.ticker import MaxNLocator  # half a second

    from senet.analysis.canvas import MEAN, PLAIN, SEED, blank, name_axes, name_lines

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
