"""Intervals and paired tests, compared with scipy, statsmodels and published numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar

from components.evaluate.metrics.statistics import (
    binomial_tail,
    bootstrap_difference,
    compare,
)


@pytest.mark.parametrize("trials", [0, 1, 2, 7, 30, 301, 2000])
def test_binomial_tail_equals_scipy(trials) -> None:
    for at_least in {0, 1, trials // 3, trials // 2, trials, trials + 1}:
        expected = stats.binom.sf(at_least - 1, trials, 0.5)
        assert binomial_tail(at_least, trials) == pytest.approx(expected, rel=1e-9, abs=1e-300)


def paired(both: int, wins: int, losses: int, neither: int):
    correct = np.repeat([True, True, False, False], [both, wins, losses, neither])
    champion_correct = np.repeat([True, False, True, False], [both, wins, losses, neither])
    return correct, champion_correct


@pytest.mark.parametrize(
    ("both", "wins", "losses", "neither"),
    [(90, 0, 0, 10), (90, 3, 3, 4), (80, 12, 2, 6), (80, 2, 12, 6), (0, 1, 0, 0), (0, 0, 1, 0),
     (300, 7, 15, 38), (100, 60, 50, 150), (0, 0, 0, 5)],
)  # fmt: skip
def test_comparison_equals_the_exact_tests_of_statsmodels_and_scipy(both, wins, losses, neither):
    result = compare(*paired(both, wins, losses, neither), name="a")
    table = [[both, wins], [losses, neither]]
    assert (result.wins, result.losses) == (wins, losses)
    if wins + losses:
        assert result.p_two_sided == pytest.approx(mcnemar(table, exact=True).pvalue, rel=1e-12)
        for p, count in ((result.p_worse, losses), (result.p_better, wins)):
            one_sided = stats.binomtest(count, wins + losses, 0.5, alternative="greater").pvalue
            assert p == pytest.approx(one_sided, rel=1e-12)
    else:
        assert result.p_two_sided == result.p_worse == result.p_better == 1.0
    assert result.difference == pytest.approx(result.accuracy - result.champion_accuracy)
    assert result.difference_low <= result.difference <= result.difference_high


def test_comparison_of_no_images_is_nan() -> None:
    result = compare(np.array([], bool), np.array([], bool), name="a")
    assert result.images == 0 and math.isnan(result.difference)


@pytest.mark.parametrize(
    ("shape", "other"), [((1,), (2,)), ((2,), (1,)), ((2, 2), (2, 2)), ((), ())]
)
def test_comparison_of_unequal_lengths_is_an_error(shape, other) -> None:
    with pytest.raises(ValueError, match="equal lengths"):
        compare(np.ones(shape, bool), np.ones(other, bool), name="a")


def test_bootstrap_interval_agrees_with_that_of_scipy_over_images() -> None:
    correct, champion_correct = paired(280, 30, 12, 38)
    difference = correct.astype(float) - champion_correct.astype(float)
    expected = stats.bootstrap(
        (difference,),
        np.mean,
        n_resamples=10_000,
        method="percentile",
        rng=np.random.default_rng(3),
    ).confidence_interval
    ours = bootstrap_difference(30, 12, 360)
    np.testing.assert_allclose(ours, expected, atol=0.004)


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95])
def test_bootstrap_interval_without_losses_is_that_of_the_binomial_distribution(confidence) -> None:
    interval = bootstrap_difference(2500, 0, 10_000, confidence=confidence)
    expected = stats.binom.interval(confidence, 10_000, 0.25)
    # The error of a quantile of 10,000 resamples is about 0.03 of the 43 images of deviation.
    np.testing.assert_allclose(interval, np.array(expected) / 10_000, atol=4 / 10_000)


def test_bootstrap_interval_depends_only_on_the_seed() -> None:
    interval = bootstrap_difference(900, 400, 5000, seed=0)
    assert interval == bootstrap_difference(900, 400, 5000)
    assert interval != bootstrap_difference(900, 400, 5000, seed=1)
    result = compare(*paired(3600, 900, 400, 100), name="a")
    assert (result.difference_low, result.difference_high) == interval
