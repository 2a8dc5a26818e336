"""``senet gates``: the paper's Figures 6 and 7 and a saturation table, from a checkpoint and its data."""

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from senet.analysis.canvas import save_png, words
from senet.analysis.gate_statistics import (
    ALWAYS_ON,
    BINS,
    DEAD,
    PAPER_CLASSES,
    ClassStatistics,
    Saturation,
    collect_gates,
    dead_units,
    panels,
    paper_panels,
    sampled_channels,
    saturation,
)
from senet.data.sets import data_config
from senet.errors import UserError, did_you_mean
from senet.files import write_text
from senet.page import render
from senet.rundir import RunDir
from senet.table import Column, Table, as_csv
from senet.terminal import fitted, terminal_width
from senet.weights import Checkpoint, read_checkpoint

COLOURS = ("#1f5fbf", "#d1722e", "#3a8f5d", "#a0509c", "#7a6a4f", "#5b6fd6", "#b83a4b", "#3f9aa8")

LETTERS, HANDLE = 10, 6
"""Letters of a legend in an inch, wide ones counted, and the letters that the mark before a name takes."""
SATURATION: list[Column[Saturation]] = [
    Column("block", lambda row: row.block, words=True),
    Column("C", lambda row: str(row.channels)),
    Column("mean", lambda row: f"{row.mean:.3f}"),
    Column("class sd", lambda row: f"{row.class_sd:.4f}"),
    Column("image sd", lambda row: f"{row.image_sd:.4f}"),
    Column("dead", lambda row: f"{row.dead:.1%}"),
    Column("on", lambda row: f"{row.always_on:.1%}"),
    Column("|s-1|", lambda row: f"{row.identity:.3f}"),
    Column("entropy", lambda row: "" if row.entropy is None else f"{row.entropy:.2f}"),
    Column("idle", lambda row: "" if row.hidden is None else f"{row.dead_hidden}/{row.hidden}"),
]


def saturation_text(
    rows: Sequence[Saturation], sampled: Mapping[str, float], *, paper: bool, width: int | None = None
) -> str:
    """Return the saturation table as text.

    Args:
        rows: one per block.
        sampled: each block's sd of the chosen classes' means over the channels of Figure 6.
        paper: whether the paper's figures of SE-ResNet-50 stand beside it.
        width: of the terminal; the last columns give way to it.
    """
    printed = paper_panels() if paper else {}

    def column(title: str, group: str, cell: Callable[[str], str]) -> Column[Saturation]:
        return Column(title, lambda row: cell(row.block) if row.block in printed else "", group=group)

    theirs = [
        column("class sd", "sampled", lambda block: f"{sampled[block]:.4f}"),
        column("mean", "paper", lambda block: f"{printed[block].mean:.3f}"),
        column("class sd", "paper", lambda block: f"{printed[block].class_sd:.4f}"),
    ]
    table = Table([*SATURATION, *(theirs if paper else ())], rows).text(width=width)
    return render("saturation.txt", table=table, paper=paper, dead=DEAD, always_on=ALWAYS_ON, bins=BINS)


def class_means(blocks: Mapping[str, ClassStatistics], classes: Mapping[str, int]) -> Figure:
    """Draw Figure 6: the mean gate of each class and of all, over every ``ceil(C / 50)``-th channel."""
    return _panels(blocks, classes, "Mean gate by class", bands=False)


def within_class(blocks: Mapping[str, ClassStatistics], classes: Mapping[str, int]) -> Figure:
    """Draw Figure 7: the mean gate of each class with a band of one sd over its images."""
    return _panels(blocks, classes, "Mean gate and sd within a class", bands=True)


def _panel(axis: Any, found: ClassStatistics, classes: Mapping[str, int], bands: bool) -> None:
    channels = np.array(sampled_channels(found.mean.shape[1]))
    for (name, index), colour in zip(classes.items(), cycle(COLOURS), strict=False):
        mean, sd = found.mean[index, channels], found.sd[index, channels]
        if bands:
            axis.fill_between(channels + 1, mean - sd, mean + sd, color=colour, alpha=0.25, linewidth=0)
        axis.plot(channels + 1, mean, color=colour, linewidth=1.2, label=words(name, 30))
    if not bands:
        overall = found.overall()[0][channels]
        axis.plot(channels + 1, overall, color="black", linewidth=1.6, linestyle=":", label="all")


def _panels(
    blocks: Mapping[str, ClassStatistics], classes: Mapping[str, int], title: str, *, bands: bool
) -> Figure:
    columns = min(3, len(blocks))
    rows = -(-len(blocks) // columns)
    figure = Figure(figsize=(3.7 * columns, 2.7 * rows + 0.7), layout="constrained")
    axes: Any = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, (name, found) in zip(axes, blocks.items(), strict=False):
        _panel(axis, found, classes, bands)
        axis.set_title(name, fontsize=11)
        axis.set(xlabel="channel", ylabel="gate")
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        axis.xaxis.get_major_locator().set_params(integer=True)
        # A sigmoid fills 0..1; tanh and ReLU gates set their own frame.
        if float(found.mean.min()) >= 0 and float(found.mean.max()) <= 1:
            axis.set_ylim(-0.02, 1.02)
    for axis in axes[len(blocks) :]:
        axis.remove()
    handles, labels = axes[0].get_legend_handles_labels()
    longest = max(len(line) for label in labels for line in label.split("\n")) + HANDLE
    room = int(LETTERS * figure.get_figwidth() / longest)
    columns = min(len(labels), max(1, room))
    figure.set_figheight(figure.get_figheight() + 0.4 * (-(-len(labels) // columns) - 1))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)
    figure.suptitle(title)
    return figure


def channel_records(
    statistics: Mapping[str, ClassStatistics], chosen: Mapping[str, int], names: Mapping[str, str]
) -> list[dict[str, object]]:
    """Return block, class, images, channel (from 1), mean and sd: of the chosen classes and of "all"."""
    records: list[dict[str, object]] = []
    for block, found in statistics.items():
        curves = [(names[c], found.count[k], found.mean[k], found.sd[k]) for c, k in chosen.items()]
        for name, images, means, sds in [*curves, ("all", found.count.sum(), *found.overall())]:
            start = {"block": block, "class": name, "images": int(images)}
            for channel, (mean, sd) in enumerate(zip(means.tolist(), sds.tolist(), strict=True), start=1):
                records.append({**start, "channel": channel, "mean": f"{mean:.8g}", "sd": f"{sd:.8g}"})
    return records


def write(found: Mapping[str, ClassStatistics], chosen: Mapping[str, int], out: Path, paper: bool) -> str:
    """Write tables and pictures to ``out``; return the saturation table as the terminal has room for it.

    Raises:
        UserError: if a chosen class had no image.
    """
    seen = next(iter(found.values())).count
    if unseen := [name for name, index in chosen.items() if not seen[index]]:
        raise UserError(f"there is no validation image of {', '.join(unseen)}: name other --classes")
    out.mkdir(parents=True, exist_ok=True)
    names = {name: PAPER_CLASSES.get(name, name) for name in chosen}
    rows = [saturation(name, statistics) for name, statistics in found.items()]
    indices = list(chosen.values())
    sampled = {
        name: float(s.mean[indices][:, list(sampled_channels(s.mean.shape[1]))].std(0, correction=0).mean())
        for name, s in found.items()
    }
    fired = {name: statistics.fired for name, statistics in found.items() if statistics.fired is not None}
    idle = f"\n{dead_units(fired, int(next(iter(found.values())).count.sum()))}\n" if fired else ""
    write_text(out / "saturation.txt", saturation_text(rows, sampled, paper=paper) + idle)
    write_text(out / "saturation.csv", as_csv([vars(row) for row in rows]) + "\n")
    write_text(out / "gates.csv", as_csv(channel_records(found, chosen, names)) + "\n")
    shown = {name: found[name] for name in panels(found)}
    labels = {names[name]: index for name, index in chosen.items()}
    save_png(class_means(shown, labels), out / "figure6.png")
    save_png(within_class(shown, dict(list(labels.items())[:2])), out / "figure7.png")
    return saturation_text(rows, sampled, paper=paper, width=terminal_width()) + fitted(idle, indent=0)


# Command --------------------------------------------------------------------------------------------------


def choose_classes(wanted: str | None, classes: Sequence[str]) -> dict[str, int]:
    """Return class name to index: those of ``wanted`` ("a,b,c"), the paper's four, or four spread evenly.

    Raises:
        UserError: for a class that the data lacks.
    """
    if wanted is None:
        names = list(PAPER_CLASSES)
        if not set(names) <= set(classes):
            step = (len(classes) - 1) / 3
            names = list(dict.fromkeys(classes[round(i * step)] for i in range(4)))
    else:
        names = [name.strip() for name in wanted.split(",") if name.strip()]
        ids = {label: wnid for wnid, label in PAPER_CLASSES.items() if wnid in classes}
        names = [ids.get(name, name) if name not in classes else name for name in names]
    for name in names:
        if name not in classes:
            raise UserError(f'there is no class "{name}"{did_you_mean(name, classes)}')
    if not names:
        raise UserError("--classes names no class: give for example --classes cat,dog")
    return {name: list(classes).index(name) for name in names}


def validation_batches(checkpoint: Checkpoint, root: str | None) -> Iterable[tuple[Tensor, Tensor]]:
    """Yield the normalised validation images and labels of a checkpoint."""
    from senet.data.module import ImageData  # seconds to import

    config = data_config(checkpoint.config["data"])
    if root is not None:
        config = config.moved(root, f"--root {root}")
    preprocessing = checkpoint.preprocessing
    held_out = RunDir(checkpoint.path.parent.parent).held_out()
    data = ImageData(
        config, None, 0, preprocessing=preprocessing, classes=checkpoint.classes, held_out=held_out
    )
    for batch in data.val_dataloader():
        yield preprocessing.normalise(batch.images), batch.labels


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "runs", type=Path, nargs="+", metavar="RUN_DIR", help="several are compared over r, too"
    )
    parser.add_argument(
        "--classes", metavar="A,B,C,D", help="classes to show (default: the paper's four, or four)"
    )
    parser.add_argument("--weights", choices=("auto", "raw", "ema"), default="auto")
    parser.add_argument("--which", choices=("best", "last"), default="best", help="checkpoint of the run")
    parser.add_argument("--root", help="where the images lie, if not where they lay")
    parser.add_argument("--out", type=Path, help="where to write (default: RUN_DIR/gates)")


Shown = tuple[Path, int | None, list[Saturation]]
"""A run, its r, and what its blocks do."""


def _mean(shown: Shown, axis: str) -> str:
    values = [getattr(row, axis) for row in shown[2] if getattr(row, axis) is not None]
    return f"{sum(values) / len(values):.4f}" if values else ""


def _idle(shown: Shown) -> str:
    return str(sum(row.dead_hidden or 0 for row in shown[2])) if shown[2][0].hidden else ""


OVER_R: list[Column[Shown]] = [
    Column("run", lambda shown: shown[0].name, words=True),
    Column("r", lambda shown: str(shown[1] or "")),
    Column("entropy", lambda shown: _mean(shown, "entropy")),
    Column("class sd", lambda shown: _mean(shown, "class_sd")),
    Column("image sd", lambda shown: _mean(shown, "image_sd")),
    Column("idle", _idle),
]


def run(arguments: argparse.Namespace) -> int:
    if arguments.out and len(arguments.runs) > 1:
        raise UserError("--out is for the gates of one run: drop it, each run keeps its own")
    found = sorted(
        (_show(run, arguments) for run in arguments.runs), key=lambda shown: (shown[1] or 0, shown[0])
    )
    if len(found) > 1:
        print("means over the blocks of each run, and hidden units that never fire")
        print(Table(OVER_R, found).text(width=terminal_width()))
    return 0


def _show(run: Path, arguments: argparse.Namespace) -> Shown:
    """Write and print what the gates of one run do."""
    checkpoint = read_checkpoint(run / "checkpoints" / f"{arguments.which}.ckpt")
    network, used = checkpoint.network(arguments.weights), checkpoint.choose(arguments.weights)
    name, classes = network.record["name"], checkpoint.classes
    chosen = choose_classes(arguments.classes, classes)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    batches = ((x.to(device), y) for x, y in validation_batches(checkpoint, arguments.root))
    found = collect_gates(network.to(device), batches, len(classes))
    out = arguments.out or run / "gates"
    config = next(iter(network.se_blocks().values())).config
    text = write(found, chosen, out, paper=name == "se_resnet50" and config.block == "se")
    print(f"{name}, {arguments.which} checkpoint, {used} weights\n\n{text}\nwritten to {out.resolve()}")
    reduction = config.reduction if config.reads("reduction") else None
    return run, reduction, [saturation(block, gates) for block, gates in found.items()]
