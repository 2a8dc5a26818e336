"""Intervals and tests against scipy, exact sums and brute force."""

import itertools

import numpy as np
import pytest
from scipy import stats

from senet.analysis.statistics import bootstrap, compare, compare_images, describe, mcnemar, t_interval

A = {0: 3.1, 1: 2.4, 2: 2.9, 3: 3.3}
B = {0: 3.9, 1: 3.0, 2: 3.2, 3: 4.4}


def test_mean_sd_and_interval():
    values = list(A.values())
    assert describe(values) == (pytest.approx(np.mean(values)), pytest.approx(np.std(values, ddof=1)), 4)
    assert describe([2.0]) == (2.0, None, 1)
    theirs = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert t_interval(values) == pytest.approx(tuple(theirs))
    assert t_interval([2.0]) is None
    assert t_interval([0.6995952911506185] * 3) is None  # whose mean is another number


def test_paired_interval_over_common_seeds():
    found = compare(A | {9: 50.0}, B | {8: 0.0})  # seeds that only one has are left out
    theirs = stats.ttest_rel(list(A.values()), list(B.values())).confidence_interval(0.95)
    assert (found.method, found.n) == ("paired", 4)
    assert found.estimate == pytest.approx(-0.7)
    assert found.interval == pytest.approx(tuple(theirs))
    assert found.verdict == f"better by {-theirs.high:.2f}..{-theirs.low:.2f} points"
    assert compare(B, A).verdict == f"worse by {-theirs.high:.2f}..{-theirs.low:.2f} points"


def test_welch_where_seeds_differ():
    shifted = {seed + 10: error for seed, error in B.items()} | {20: 3.5}
    found = compare(A, shifted)
    theirs = stats.ttest_ind(list(A.values()), list(shifted.values()), equal_var=False).confidence_interval(
        0.95
    )
    assert (found.method, found.n) == ("Welch", 4)
    assert found.interval == pytest.approx(tuple(theirs))


def test_no_interval_and_no_verdict_from_too_little():
    assert compare({0: 2.0}, {0: 3.0}).verdict == "one seed: no interval"
    assert compare({0: 2.0}, {1: 3.0, 2: 4.0}).estimate == pytest.approx(-1.5)
    assert compare({0: 2.0, 1: 3.0}, {0: 2.5, 1: 3.5}).verdict == "no spread over seeds: no interval"
    assert compare({0: 2.0, 1: 3.0, 2: 2.2}, {0: 2.4, 1: 2.7, 2: 2.2}).verdict == "within noise"


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (1, 0), (9, 2), (40, 61), (300, 240)])
def test_mcnemar_of_one_seed_is_the_binomial_test(wins: int, losses: int):
    gains = np.array([1] * wins + [-1] * losses + [0] * 50)
    expected = stats.binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    assert mcnemar(gains) == pytest.approx(expected, abs=1e-12)


def test_mcnemar_of_several_seeds_flips_whole_images():
    gains = np.array([3, -1, 2, 2, -2, 1, 1, 0, 3, -1, 2])
    signs = np.array(list(itertools.product((-1, 1), repeat=len(gains))))
    sums = signs @ np.abs(gains)
    assert mcnemar(gains) == pytest.approx(np.mean(np.abs(sums) >= gains.sum()), abs=1e-12)
    # Counting (image, seed) pairs as if independent would claim more: the same images three times over.
    once = np.array([1] * 9 + [-1] * 3)
    assert mcnemar(3 * once) == pytest.approx(mcnemar(once))


def test_bootstrap_draws_images():
    generator = np.random.default_rng(1)
    ours = generator.random((2, 400)) < 0.93
    baseline = generator.random((2, 400)) < 0.88
    gains = ours.sum(0) - baseline.sum(0)
    low, high = bootstrap(gains.astype(np.int64), 2)
    theirs = stats.bootstrap(
        (-100.0 * gains / 2,), np.mean, method="percentile", rng=generator
    ).confidence_interval
    assert (low, high) == pytest.approx(tuple(theirs), abs=0.25)
    found = compare_images(ours, baseline)
    assert found.only_ours == (ours & ~baseline).sum()
    assert found.only_baseline == (~ours & baseline).sum()
    assert found.interval == (low, high)
    assert found.seeds == 2
