"""How sure a difference is: over seeds with t intervals, over images with exact and bootstrap tests.

Two sources of chance are kept apart. Over *seeds*: the validation images are fixed, training is repeated; this
answers whether the setting is better. Over *images*: the trained networks are fixed, other images might have
been drawn; this answers whether these networks are better, and needs fewer seeds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

LEVEL = 0.95
DRAWS = 10_000
NO_SPREAD = 1e-9
"""What is left of equal figures that were computed in different ways."""


class Spread(NamedTuple):
    """Mean, sample standard deviation (n - 1; None for one value) and number of values."""

    mean: float
    sd: float | None
    n: int


def describe(values: Sequence[float]) -> Spread:
    """Return mean, sd and n of one or more values."""
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Spread(float(np.mean(values)), sd, len(values))


def t_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Return the 95 % t interval of the mean, or None for one value or values without spread."""
    if np.ptp(values) < NO_SPREAD:
        return None
    low, high = stats.ttest_1samp(values, 0).confidence_interval(LEVEL)
    return float(low), float(high)


@dataclass(frozen=True)
class Difference:
    """A point's error minus its baseline's, in percentage points; below 0 is better.

    Attributes:
        estimate: the mean difference.
        interval: 95 % interval, or None.
        method: "paired" (same seeds) or "Welch" (other seeds).
        n: pairs, or the smaller number of seeds.
    """

    estimate: float
    interval: tuple[float, float] | None
    method: str
    n: int

    @property
    def verdict(self) -> str:
        """What the interval says, in words."""
        if self.interval is None:
            return "one seed: no interval" if self.n == 1 else "no spread over seeds: no interval"
        low, high = self.interval
        if high < 0:
            return f"better by {-high:.2f}..{-low:.2f} points"
        if low > 0:
            return f"worse by {low:.2f}..{high:.2f} points"
        return "within noise"


def compare(ours: Mapping[int, float], baseline: Mapping[int, float]) -> Difference:
    """Compare errors by seed: a paired t interval over the common seeds, Welch's where fewer than two agree.

    Pairing assumes that the differences of single seeds are about normal; Welch's interval that both samples
    are.
    """
    common = sorted(ours.keys() & baseline.keys())
    if len(common) < 2 <= min(len(ours), len(baseline)):
        return _welch(list(ours.values()), list(baseline.values()))
    if not common:
        estimate = float(np.mean(list(ours.values())) - np.mean(list(baseline.values())))
        return Difference(estimate, None, "unpaired", 1)
    differences = [ours[seed] - baseline[seed] for seed in common]
    return Difference(float(np.mean(differences)), t_interval(differences), "paired", len(common))


def _welch(a: Sequence[float], b: Sequence[float]) -> Difference:
    interval = None
    if max(np.ptp(a), np.ptp(b)) >= NO_SPREAD:
        low, high = stats.ttest_ind(a, b, equal_var=False).confidence_interval(LEVEL)
        interval = float(low), float(high)
    return Difference(float(np.mean(a) - np.mean(b)), interval, "Welch", min(len(a), len(b)))


# Over images ----------------------------------------------------------------------------------------------

Right = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class ImageComparison:
    """Two sets of networks on the same images.

    Attributes:
        only_ours: (image, seed) pairs that only ours got right.
        only_baseline: those that only the baseline got right.
        p: exact two-sided p of McNemar's test.
        interval: 95 % bootstrap interval of the difference of errors, in points.
        seeds: seeds that both have.
    """

    only_ours: int
    only_baseline: int
    p: float
    interval: tuple[float, float]
    seeds: int


def compare_images(ours: Right, baseline: Right) -> ImageComparison:
    """Compare what was right, both (seeds, images) in the same order.

    Seeds see the same images, so their (image, seed) pairs are not independent: an image is the unit of both
    tests. They assume that images were drawn independently, and say nothing of seeds that were not trained.
    """
    assert ours.ndim == 2
    assert ours.shape == baseline.shape
    gains = (ours.astype(np.int64) - baseline).sum(0)
    return ImageComparison(
        only_ours=int((ours & ~baseline).sum()),
        only_baseline=int((baseline & ~ours).sum()),
        p=mcnemar(gains),
        interval=bootstrap(gains, len(ours)),
        seeds=len(ours),
    )


def mcnemar(gains: npt.NDArray[np.int64]) -> float:
    """Return the exact two-sided p of McNemar's test, for one seed or several.

    ``gains`` (N,) is, per image, the seeds that only ours got right minus those that only the baseline did.
    If the two were equally good, each image's gain g would as likely be -g. The sum T of the gains then has
    the characteristic function ``prod cos(g t)``, whose inverse transform is T's exact distribution. For one
    seed this is the binomial test on the images that exactly one of the two got right.
    """
    sizes, counts = np.unique(np.abs(gains[gains != 0]), return_counts=True)
    if not sizes.size:
        return 1.0
    reach = int((sizes * counts).sum())
    angles = 2 * np.pi * np.arange(2 * reach + 1) / (2 * reach + 1)
    transform = np.ones_like(angles)
    for size, count in zip(sizes, counts, strict=True):
        transform *= np.cos(size * angles) ** count
    chance = np.fft.ifft(transform).real  # of T = 0, 1, ..., reach, -reach, ..., -1
    values = np.concatenate([np.arange(reach + 1), np.arange(-reach, 0)])
    p = float(chance[np.abs(values) >= abs(int(gains.sum()))].sum())
    return min(1.0, max(0.0, p))


def bootstrap(gains: npt.NDArray[np.int64], seeds: int) -> tuple[float, float]:
    """Return the 95 % percentile interval of the difference of errors in points, images drawn anew.

    Images of equal gain are alike, so drawing N images is drawing how often each gain occurs.
    """
    values, counts = np.unique(gains, return_counts=True)
    n = len(gains)
    drawn = np.random.default_rng(0).multinomial(n, counts / n, size=DRAWS) @ values
    low, high = np.percentile(-100.0 * drawn / (n * seeds), [100 * (1 - LEVEL) / 2, 100 * (1 + LEVEL) / 2])
    return float(low), float(high)
