"""The training curves of one run, as a picture."""

import csv
from pathlib import Path
from typing import Any


def draw_curves(run: Path) -> Path | None:
    """Draw ``curves.png`` from ``metrics.csv``: loss on the left, top-1 error on the right.

    Returns:
        The picture's path, or None if nothing was logged yet.
    """
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.use("Agg")
    table = run / "metrics.csv"
    if not table.exists():
        return None
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))

    def column(name: str, scale: float = 1.0, offset: float = 0.0) -> tuple[list[float], list[float]]:
        points = [(int(r["epoch"]) + 1, offset + scale * float(r[name])) for r in rows if r.get(name)]
        return [float(x) for x, _ in points], [y for _, y in points]

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes: Any = figure.subplots(1, 2)
    styles = {
        "train": ("tab:gray", "train"),
        "val": ("tab:blue", "validation"),
        "val_ema": ("tab:orange", "average"),
    }
    for prefix, (colour, label) in styles.items():
        for axis, (name, scale, offset) in zip(
            axes, (("loss", 1.0, 0.0), ("top1", -1.0, 100.0)), strict=True
        ):
            x, y = column(f"{prefix}/{name}", scale, offset)
            if x:
                axis.plot(x, y, color=colour, label=label, marker="." if len(x) < 30 else None, linewidth=1.6)
    for axis, title in zip(axes, ("loss", "top-1 error, %"), strict=True):
        axis.set(xlabel="epoch", title=title)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
        if axis.lines:
            axis.legend(frameon=False)
    axes[1].set_ylim(bottom=0)
    figure.suptitle(run.name, fontsize=10)
    picture = run / "curves.png"
    figure.savefig(picture, dpi=120)
    return picture
