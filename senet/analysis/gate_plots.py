"""Figures 6 and 7 of the paper for any network."""

from collections.abc import Callable, Mapping
from typing import Any

from matplotlib.figure import Figure

from senet.analysis.canvas import words
from senet.analysis.gate_statistics import ClassStatistics, sampled_channels

COLOURS = ("#1f5fbf", "#d1722e", "#3a8f5d", "#a0509c", "#7a6a4f", "#5b6fd6", "#b83a4b", "#3f9aa8")

LETTERS, HANDLE = 10, 6
"""Letters of a legend in an inch, wide ones counted, and the letters that the mark before a name takes."""

Panel = Callable[[Any, ClassStatistics, list[int]], None]


def class_means(blocks: Mapping[str, ClassStatistics], classes: Mapping[str, int]) -> Figure:
    """Draw Figure 6: the mean gate of each class and of all, over every ``ceil(C / 50)``-th channel."""

    def panel(axis: Any, found: ClassStatistics, channels: list[int]) -> None:
        for (name, index), colour in zip(classes.items(), _colours(len(classes)), strict=True):
            axis.plot(
                _numbers(channels),
                found.mean[index, channels],
                color=colour,
                linewidth=1.2,
                label=words(name, 30),
            )
        overall, _ = found.overall()
        axis.plot(
            _numbers(channels), overall[channels], color="black", linewidth=1.6, linestyle=":", label="all"
        )

    return _panels(blocks, "Mean gate by class", panel)


def within_class(blocks: Mapping[str, ClassStatistics], classes: Mapping[str, int]) -> Figure:
    """Draw Figure 7: the mean gate of each class with a band of one sd over its images."""

    def panel(axis: Any, found: ClassStatistics, channels: list[int]) -> None:
        for (name, index), colour in zip(classes.items(), _colours(len(classes)), strict=True):
            mean, sd = found.mean[index, channels], found.sd[index, channels]
            axis.fill_between(_numbers(channels), mean - sd, mean + sd, color=colour, alpha=0.25, linewidth=0)
            axis.plot(_numbers(channels), mean, color=colour, linewidth=1.2, label=words(name, 30))

    return _panels(blocks, "Mean gate and sd within a class", panel)


def _colours(count: int) -> list[str]:
    return [COLOURS[index % len(COLOURS)] for index in range(count)]


def _numbers(channels: list[int]) -> list[int]:
    return [channel + 1 for channel in channels]


def _panels(blocks: Mapping[str, ClassStatistics], title: str, panel: Panel) -> Figure:
    columns = min(3, len(blocks))
    rows = -(-len(blocks) // columns)
    figure = Figure(figsize=(3.7 * columns, 2.7 * rows + 0.7), layout="constrained")
    axes: Any = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, (name, found) in zip(axes, blocks.items(), strict=False):
        panel(axis, found, list(sampled_channels(found.mean.shape[1])))
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
