"""The plots of a report as SVG whose colours follow the page, and as PNG."""

import io
import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from senet.analysis.statistics import t_interval
from senet.analysis.table import Row, count

INK, GRID, SEED, MEAN, PLAIN, PANEL = "#202124", "#dadce1", "#6b7585", "#1f5fbf", "#b4552d", "#f6f7f9"
VARIABLES = {
    INK: "--ink",
    GRID: "--line",
    SEED: "--seed",
    MEAN: "--accent",
    PLAIN: "--plain",
    PANEL: "--panel",
}
"""The colours in the pictures to the style variables that replace them in SVG."""

Plot = Callable[[list[Row]], Figure | None]


def _figure(rows: int = 0) -> tuple[Figure, Any]:
    figure = Figure(figsize=(5.0, max(3.6, 0.9 + 0.38 * rows)), layout="constrained", facecolor="none")
    axis: Any = figure.subplots()
    axis.set_facecolor("none")
    axis.grid(color=GRID, linewidth=0.8)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    for side in ("left", "bottom"):
        axis.spines[side].set_color(SEED)
    axis.tick_params(colors=INK, labelsize=11.5, length=0)
    return figure, axis


def _frame(axis: Any, values: list[float], set_limits: Callable[[float, float], Any]) -> None:
    """Let the seeds decide the frame: the interval of two seeds may be wider than everything else."""
    low, high = min(values), max(values)
    room = max(0.35 * (high - low), 0.02 * high, 0.05)
    set_limits(max(0.0, low - room), high + room)


def _draw(axis: Any, x: float, row: Row, colour: str) -> None:
    assert row.top1 is not None
    errors = list(row.errors.values())
    interval = t_interval(errors)
    if interval:
        axis.plot([x, x], interval, color=colour, linewidth=3, alpha=0.45, solid_capstyle="round", zorder=2)
    axis.scatter([x] * len(errors), errors, s=30, color=SEED, zorder=3, linewidths=0)
    axis.scatter([x], [row.top1.mean], s=64, color=colour, zorder=4, linewidths=0)


def error_by_reduction(rows: list[Row]) -> Figure | None:
    """Draw top-1 error over r; None unless the points have two r or more, each once."""
    with_se = [row for row in rows if row.reduction is not None and row.top1 is not None]
    reductions = [row.reduction for row in with_se if row.reduction is not None]
    if len(reductions) < 2 or len(set(reductions)) != len(reductions):
        return None
    figure, axis = _figure()
    axis.set_xscale("log", base=2)
    plain = [row for row in rows if row.reduction is None and row.top1 is not None]
    for row in plain:
        assert row.top1 is not None
        axis.axhline(row.top1.mean, color=PLAIN, linewidth=1.6, linestyle=(0, (5, 3)), zorder=1)
        axis.annotate(
            row.label,
            (1, row.top1.mean),
            xycoords=("axes fraction", "data"),
            xytext=(-2, 3),
            textcoords="offset points",
            ha="right",
            color=PLAIN,
            fontsize=11.5,
        )
        for error in row.errors.values():
            axis.plot(
                [0, 0.02], [error, error], color=PLAIN, linewidth=1.6, transform=axis.get_yaxis_transform()
            )
    means = sorted((r, row.top1.mean) for r, row in zip(reductions, with_se, strict=True) if row.top1)
    axis.plot(*zip(*means, strict=True), color=MEAN, linewidth=1.2, alpha=0.6, zorder=2)
    for reduction, row in zip(reductions, with_se, strict=True):
        _draw(axis, reduction, row, MEAN)
    axis.set_xticks(reductions, [str(r) for r in reductions])
    axis.minorticks_off()
    axis.set_xlim(min(reductions) / 1.5, max(reductions) * 1.5)
    axis.set_xlabel("reduction ratio r", color=INK, fontsize=11.5)
    axis.set_ylabel("top-1 error, %", color=INK, fontsize=11.5)
    _frame(axis, [e for row in with_se + plain for e in row.errors.values()], axis.set_ylim)
    return figure


def error_by_point(rows: list[Row]) -> Figure | None:
    """Draw top-1 error of every point, one line each, seeds as dots."""
    shown = [row for row in rows if row.top1 is not None]
    if not shown:
        return None
    figure, axis = _figure(len(shown))
    for y, row in enumerate(shown):
        assert row.top1 is not None
        errors, colour = list(row.errors.values()), PLAIN if row.baseline is None else MEAN
        interval = t_interval(errors)
        if interval:
            axis.plot(
                interval, [y, y], color=colour, linewidth=3, alpha=0.45, solid_capstyle="round", zorder=2
            )
        axis.scatter(errors, [y] * len(errors), s=30, color=SEED, zorder=3, linewidths=0)
        axis.scatter([row.top1.mean], [y], s=64, color=colour, zorder=4, linewidths=0)
    axis.set_yticks(range(len(shown)), [textwrap.shorten(row.label, 40, placeholder=" …") for row in shown])
    axis.set_ylim(len(shown) - 0.4, -0.6)
    axis.set_xlabel("top-1 error, %", color=INK, fontsize=11.5)
    _frame(axis, [e for row in shown for e in row.errors.values()], axis.set_xlim)
    return figure


def error_by_cost(rows: list[Row]) -> Figure | None:
    """Draw top-1 error over what varies more, multiply-adds or parameters; None if neither does."""
    shown = [row for row in rows if row.top1 is not None and row.macs and row.parameters]
    costs = {
        "multiply-adds (MACs)": [float(row.macs or 0) for row in shown],
        "parameters": [float(row.parameters or 0) for row in shown],
    }
    name, values = max(costs.items(), key=lambda item: max(item[1], default=1) / min(item[1], default=1))
    if len(set(values)) < 2:
        return None
    figure, axis = _figure()
    spread = max(values) - min(values)
    for x, row in zip(values, shown, strict=True):
        _draw(axis, x, row, PLAIN if row.baseline is None else MEAN)
    for x, row in zip(values, shown, strict=True):
        _name(axis, x, row, [(v, r) for v, r in zip(values, shown, strict=True) if r is not row], spread)
    axis.set_xlim(min(values) - 0.12 * spread, max(values) + 0.12 * spread)
    axis.locator_params(axis="x", nbins=5)
    axis.xaxis.set_major_formatter(lambda value, _: count(round(value)))
    axis.set_xlabel(name, color=INK, fontsize=11.5)
    axis.set_ylabel("top-1 error, %", color=INK, fontsize=11.5)
    _frame(axis, [e for row in shown for e in row.errors.values()], axis.set_ylim)
    return figure


def _name(axis: Any, x: float, row: Row, others: list[tuple[float, Row]], spread: float) -> None:
    """Write a point's label beside it: to the inside at the right end, below where another stands just above."""
    assert row.top1 is not None
    y, (low, high) = row.top1.mean, axis.dataLim.intervaly
    near = 0.09 * (high - low)
    below = any(abs(v - x) < 0.3 * spread and 0 <= r.top1.mean - y < near for v, r in others if r.top1)
    right = x > axis.dataLim.x0 + 0.75 * spread
    axis.annotate(
        row.label,
        (x, y),
        xytext=(-8 if right else 8, -5 if below else 5),
        textcoords="offset points",
        ha="right" if right else "left",
        va="top" if below else "bottom",
        fontsize=11.5,
        color=INK,
        bbox={"facecolor": PANEL, "edgecolor": "none", "alpha": 0.85, "pad": 0.6},
        zorder=5,
    )


def draw(rows: list[Row]) -> dict[str, Figure]:
    """Return the plots that these rows allow, by title."""
    plots: dict[str, Plot] = {
        "Error and reduction ratio": error_by_reduction,
        "Error of every point": error_by_point,
        "Error and cost": error_by_cost,
    }
    drawn = {title: plot(rows) for title, plot in plots.items()}
    if drawn["Error and reduction ratio"] is not None:
        del drawn["Error of every point"]
    return {title: figure for title, figure in drawn.items() if figure is not None}


def as_svg(figure: Figure, name: str) -> str:
    """Return an ``<svg>`` element: text as text, colours by the page's variables, ids that only it has."""
    file = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(
            file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
        )
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    svg = re.sub(r'( id="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font: \1px var(--font)", svg)
    return svg.replace("<svg", f'<svg role="img" aria-label="{name}"', 1)


def save_png(figure: Figure, path: Path) -> None:
    """Write a picture with a white ground, for slides and papers."""
    figure.savefig(path, dpi=160, facecolor="white")
