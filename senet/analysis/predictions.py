"""What the predictions of one network show: its classes, confusions, calibration and most confident mistakes."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from senet.analysis.labels import natural
from senet.rundir import Predictions

BINS = 15
"""Of confidence, equally wide, as in Guo et al. 2017 (arXiv 1706.04599)."""
SHOWN = 20
"""Classes that a matrix can have and still be read."""
MISTAKES = 24

Counts = npt.NDArray[np.int64]


class ClassResult(NamedTuple):
    """One class: how many images it has, how many were right, and what the others were taken for most often."""

    name: str
    images: int
    right: int
    other: str
    times: int


class Pair(NamedTuple):
    """How many of the images of a class were taken for another one."""

    label: str
    predicted: str
    times: int
    images: int


class Calibration(NamedTuple):
    """Mean confidence and accuracy of the bins that hold images, and the expected calibration error, all in 0..1."""

    confidence: npt.NDArray[np.float64]
    accuracy: npt.NDArray[np.float64]
    ece: float


def class_names(table: Predictions) -> list[str]:
    """Return the classes that are a label or were predicted, numbers in names by value."""
    return sorted({*table.labels.tolist(), *table.predicted.tolist()}, key=natural)


def confusion(table: Predictions, classes: Sequence[str]) -> Counts:
    """Return how often label k was predicted as class j, (K, K)."""
    from sklearn.metrics import confusion_matrix  # a second

    counts: Counts = confusion_matrix(table.labels, table.predicted, labels=classes)
    return counts


def by_class(counts: Counts, classes: Sequence[str]) -> list[ClassResult]:
    """Return every class that has images, the one with the most mistakes first, by share."""
    wrong = counts - np.diag(np.diag(counts))
    found = [
        ClassResult(
            classes[k],
            int(counts[k].sum()),
            int(counts[k, k]),
            classes[int(wrong[k].argmax())] if wrong[k].any() else "",
            int(wrong[k].max()),
        )
        for k in range(len(classes))
        if counts[k].any()
    ]
    return sorted(found, key=lambda row: row.right / row.images)


def confused_pairs(counts: Counts, classes: Sequence[str], most: int = SHOWN) -> list[Pair]:
    """Return the mistakes that were made most often, at most so many."""
    wrong = counts - np.diag(np.diag(counts))
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    places = zip(*np.unravel_index(order, wrong.shape), strict=True)
    return [
        Pair(classes[k], classes[j], int(wrong[k, j]), int(counts[k].sum())) for k, j in places if wrong[k, j]
    ]


def worth_showing(counts: Counts, most: int = SHOWN) -> list[int]:
    """Return the classes of a matrix that can be read: all, or those confused most, which then stand together."""
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    if len(counts) <= most:
        return list(range(len(counts)))
    mutual = counts + counts.T
    np.fill_diagonal(mutual, 0)
    order = np.argsort(-np.triu(mutual), axis=None, kind="stable")[: most * most]
    ends = np.stack(np.unravel_index(order, mutual.shape), 1).ravel()
    chosen = list(dict.fromkeys(ends.tolist()))[:most]
    near = mutual[np.ix_(chosen, chosen)]
    apart = squareform(np.where(np.eye(len(chosen)), 0, near.max() - near), checks=False)
    return [chosen[i] for i in leaves_list(linkage(apart, "average", optimal_ordering=True))]


def calibration(table: Predictions) -> Calibration:
    """Compare how sure the network was of its answers with how often they were right."""
    confidence = np.nan_to_num(table.confidence)  # a network that has diverged is sure of nothing
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    count, right, sure = (np.bincount(bins, weights) for weights in (None, table.right, confidence))
    held = count > 0
    ece = float(np.abs(right - sure).sum() / len(bins))
    return Calibration(sure[held] / count[held], right[held] / count[held], ece)


def confident_mistakes(table: Predictions, most: int = MISTAKES) -> list[int]:
    """Return the rows of the mistakes that the network was surest of, the surest first."""
    wrong = np.flatnonzero(~table.right)
    order = np.argsort(-table.confidence[wrong], kind="stable")[:most]
    return [int(row) for row in wrong[order]]
