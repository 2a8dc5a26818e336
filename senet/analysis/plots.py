"""The plots of a report."""

from collections.abc import Callable, Iterable, Sequence
from itertools import product
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from senet.analysis.canvas import INK, MEAN, PLAIN, SEED, SIZE, blank, name_axes, words
from senet.analysis.labels import varying
from senet.analysis.rows import ReportRow
from senet.analysis.statistics import t_interval
from senet.table import with_prefix

WIDE = 20
"""Times the least cost from which costs are drawn on a logarithmic axis."""


def draw(rows: Sequence[ReportRow]) -> dict[str, Figure]:
    """Return the plots that these rows allow, by title."""
    finished = [row for row in rows if row.top1 is not None]
    by_reduction = error_by_reduction(finished)
    plots = {
        "Error and reduction ratio": by_reduction,
        "Error of every point": error_by_point(finished) if by_reduction is None else None,
        "Error and cost": error_by_cost(finished),
    }
    return {title: figure for title, figure in plots.items() if figure is not None}


def error_by_reduction(rows: Sequence[ReportRow]) -> Figure | None:
    """Draw top-1 error over r; None unless there are points that differ in r alone."""
    with_se = [(r, row) for row in rows if (r := row.point.reduction) is not None]
    plain = [row for row in rows if row.point.reduction is None]
    reductions = [reduction for reduction, _ in with_se]
    if varying([row.point.config for _, row in with_se]) != ["se.reduction"]:
        return None
    figure, (axis,) = blank()
    axis.set_xscale("log", base=2)
    for row in plain:
        axis.axhline(_mean(row), color=PLAIN, linewidth=1.6, linestyle=(0, (5, 3)), zorder=1)
        axis.annotate(
            words(row.label, 40),
            (1, _mean(row)),
            xycoords=("axes fraction", "data"),
            xytext=(-2, 3),
            textcoords="offset points",
            ha="right",
            color=PLAIN,
            fontsize=SIZE,
        )
        for error in row.errors.values():
            axis.plot(
                [0, 0.02], [error, error], color=PLAIN, linewidth=1.6, transform=axis.get_yaxis_transform()
            )
    means = sorted((reduction, _mean(row)) for reduction, row in with_se)
    axis.plot(*zip(*means, strict=True), color=MEAN, linewidth=1.2, alpha=0.6, zorder=2)
    for reduction, row in with_se:
        _draw(axis, reduction, row, MEAN)
    axis.set_xticks(reductions, [str(r) for r in reductions])
    axis.minorticks_off()
    axis.set_xlim(min(reductions) / 1.5, max(reductions) * 1.5)
    name_axes(axis, "reduction ratio r", "top-1 error, %")
    _frame([*(row for _, row in with_se), *plain], axis.set_ylim)
    return figure


def error_by_point(rows: Sequence[ReportRow]) -> Figure | None:
    """Draw top-1 error of every point, one line each, seeds as dots."""
    if not rows:
        return None
    labels = [words(row.label) for row in rows]
    lines = sum(label.count("\n") + 1 for label in labels)
    figure, (axis,) = blank(height=max(3.6, 0.9 + 0.16 * len(rows) + 0.22 * lines))
    for y, row in enumerate(rows):
        _draw(axis, y, row, _colour(row), sideways=True)
    axis.set_yticks(range(len(rows)), labels)
    axis.set_ylim(len(rows) - 0.4, -0.6)
    name_axes(axis, "top-1 error, %")
    axis.locator_params(axis="x", nbins=6)
    _frame(rows, axis.set_xlim)
    return figure


def error_by_cost(rows: Sequence[ReportRow]) -> Figure | None:
    """Draw top-1 error over what varies more, multiply-adds or parameters; None if neither does.

    Names stand where there is room; the best point has one.
    """
    shown = [row for row in rows if row.macs and row.parameters]
    costs = {
        "multiply-adds (MACs)": [float(row.macs or 0) for row in shown],
        "parameters": [float(row.parameters or 0) for row in shown],
    }
    name, values = max(costs.items(), key=lambda item: max(item[1], default=1) / min(item[1], default=1))
    if len(set(values)) < 2:
        return None
    figure, (axis,) = blank()
    placed = list(zip(values, shown, strict=True))
    for x, row in placed:
        _draw(axis, x, row, _colour(row))
    if max(values) > WIDE * min(values):
        axis.set_xscale("log")
        axis.set_xlim(min(values) / 1.5, max(values) * 1.5)
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 3) if max(values) < 1000 * min(values) else (1,)))
        axis.minorticks_off()
    else:
        spread = max(values) - min(values)
        axis.set_xlim(min(values) - 0.12 * spread, max(values) + 0.12 * spread)
        axis.locator_params(axis="x", nbins=5)
    axis.xaxis.set_major_formatter(lambda value, _: with_prefix(round(value)))
    name_axes(axis, name, "top-1 error, %")
    _frame(shown, axis.set_ylim)
    _name(figure, axis, sorted(placed, key=lambda point: _mean(point[1])))
    return figure


def _mean(row: ReportRow) -> float:
    assert row.top1 is not None
    return row.top1.mean


def _colour(row: ReportRow) -> str:
    return PLAIN if row.baseline is None else MEAN


def _frame(rows: Iterable[ReportRow], set_limits: Callable[[float, float], Any]) -> None:
    """Show all seeds, and intervals up to the seeds' range beyond: that of two seeds may be wider than all else."""
    rows = list(rows)
    errors = [error for row in rows for error in row.errors.values()]
    ends = [end for row in rows for end in t_interval(list(row.errors.values())) or ()]
    low, high = min(errors), max(errors)
    spread = high - low
    low, high = max(min(errors + ends), low - spread), min(max(errors + ends), high + spread)
    room = max(0.1 * (high - low), 0.02 * high, 0.05)
    set_limits(max(0.0, low - room), high + room)


def _draw(axis: Any, place: float, row: ReportRow, colour: str, *, sideways: bool = False) -> None:
    """Draw a point's interval, seeds and mean, upright over ``place`` or sideways at that height."""

    def at(errors: Sequence[float]) -> tuple[Sequence[float], Sequence[float]]:
        places = [place] * len(errors)
        return (errors, places) if sideways else (places, errors)

    errors = list(row.errors.values())
    interval = t_interval(errors)
    if interval:
        axis.plot(*at(interval), color=colour, linewidth=3, alpha=0.45, solid_capstyle="round", zorder=2)
    axis.scatter(*at(errors), s=30, color=SEED, zorder=3, linewidths=0)
    axis.scatter(*at([_mean(row)]), s=64, color=colour, zorder=4, linewidths=0)


def _name(figure: Figure, axis: Any, placed: Sequence[tuple[float, ReportRow]]) -> None:
    """Write labels beside their points where they cover no point and no label; the first may cover some."""
    figure.draw_without_rendering()  # until then nobody knows where anything is
    frame = axis.get_window_extent()
    points = [(x, error) for x, row in placed for error in (_mean(row), *row.errors.values())]
    dots = axis.transData.transform(points)
    taken: list[Any] = []
    for x, row in placed:
        sides = [_beside(axis, x, row, *offset) for offset in product((8, -8), (5, -5))]
        boxes = [text.get_window_extent() for text in sides]
        covered = [
            box.padded(3).count_contains(dots)
            + box.count_overlaps(taken)
            + 99 * (not all(frame.contains(*corner) for corner in box.get_points()))
            for box in boxes
        ]
        best = covered.index(min(covered))
        keep = min(covered) == 0 or (min(covered) < 99 and row is placed[0][1])
        for side, text in enumerate(sides):
            if keep and side == best:
                taken.append(boxes[side])
            else:
                text.remove()


def _beside(axis: Any, x: float, row: ReportRow, right: int, above: int) -> Any:
    """Write a point's label so many points to the right and above it."""
    return axis.annotate(
        words(row.label),
        (x, _mean(row)),
        xytext=(right, above),
        textcoords="offset points",
        ha="left" if right > 0 else "right",
        va="bottom" if above > 0 else "top",
        fontsize=SIZE,
        color=INK,
        zorder=5,
    )
