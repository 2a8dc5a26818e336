"""Figures 6 and 7 of the paper for any network."""

from collections.abc import Mapping
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from senet.analysis.canvas import words
from senet.analysis.gate_statistics import ClassStatistics, sampled_channels

COLOURS = ("#1f5fbf", "#d1722e", "#3a8f5d", "#a0509c", "#7a6a4f", "#5b6fd6", "#b83a4b", "#3f9aa8")

LETTERS, HANDLE = 10, 6
"""Letters of a legend in an inch, wide ones counted, and the letters that the mark before a name takes."""


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
