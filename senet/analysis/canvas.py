"""What every picture is drawn on: an empty figure, as SVG whose colours follow the page, and as PNG."""

import io
import re
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

INK, GRID, SEED, MEAN, PLAIN = "#202124", "#dadce1", "#6b7585", "#1f5fbf", "#b4552d"
VARIABLES = {
    INK: "--ink",
    GRID: "--line",
    SEED: "--seed",
    MEAN: "--accent",
    PLAIN: "--plain",
}
"""The colours in the pictures to the style variables that replace them in SVG."""
SIZE = 11.5
"""Of the letters, in points."""


def blank(width: float = 5.0, height: float = 3.6, columns: int = 1) -> tuple[Figure, list[Any]]:
    """Return a figure of so many inches and its axes, side by side, with a grid and without a box."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="none")
    axes = list(figure.subplots(1, columns, squeeze=False).ravel())
    for axis in axes:
        axis.set_facecolor("none")
        axis.grid(color=GRID, linewidth=0.8)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
        axis.spines[["left", "bottom"]].set_color(SEED)
        axis.tick_params(colors=INK, labelsize=SIZE, length=0)
    return figure, axes


def name_axes(axis: Any, x: str, y: str = "") -> None:
    """Write what the axes show, with units."""
    axis.set_xlabel(x, color=INK, fontsize=SIZE)
    axis.set_ylabel(y, color=INK, fontsize=SIZE)


def name_lines(figure: Figure, axis: Any) -> None:
    """Say below the axes, where it covers nothing, what the lines of one of them are."""
    handles, labels = axis.get_legend_handles_labels()
    if handles:
        figure.legend(
            handles,
            labels,
            loc="outside lower center",
            ncols=len(labels),
            frameon=False,
            labelcolor=INK,
            fontsize=SIZE - 1.5,
        )


def words(text: str, width: int = 22) -> str:
    """Return a name to draw as it stands, on lines of so many letters: no formula, and no label to hide."""
    return textwrap.fill(" " * text.startswith("_") + text.replace("$", r"\$"), width)


def as_svg(figure: Figure, name: str) -> str:
    """Return an ``<svg>`` element: text as text, colours by the page's variables, ids that only it has."""
    file = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}), _any_letter():
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
    with _any_letter():
        figure.savefig(path, dpi=160, facecolor="white")


@contextmanager
def _any_letter() -> Iterator[None]:
    """Draw a box for a letter that no font here has, and say nothing of it: names may be in any script."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .*missing from")
        yield
