"""Intervals of accuracies, compared with scipy, statsmodels and published numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from regraft_core.training.intervals import difference_interval, wilson_interval

CASES = [(0, 1), (1, 1), (0, 10), (10, 10), (1, 2), (5, 10), (17, 20), (342, 360), (1, 1000),
         (360, 360), (9_871, 10_000)]  # fmt: skip


@pytest.mark.parametrize(("right", "total"), CASES)
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_wilson_interval_equals_statsmodels_and_scipy(right, total, confidence) -> None:
    low, high = wilson_interval(right, total, confidence)
    expected = proportion_confint(right, total, alpha=1 - confidence, method="wilson")
    scipys = stats.binomtest(right, total).proportion_ci(confidence, method="wilson")
    np.testing.assert_allclose((low, high), expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose((low, high), scipys, rtol=1e-12, atol=1e-12)
    assert 0 <= low <= right / total <= high <= 1


def test_wilson_interval_of_a_published_case() -> None:
    # Newcombe 1998, Statistics in Medicine 17, table I, method 3: 81/263, 15/148, 0/20, 1/29.
    published = {
        (81, 263): (0.2553, 0.3662),
        (15, 148): (0.0624, 0.1605),
        (0, 20): (0.0, 0.1611),
        (1, 29): (0.0061, 0.1718),
    }
    for (right, total), interval in published.items():
        np.testing.assert_allclose(wilson_interval(right, total), interval, atol=5e-5)


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.99])
def test_wilson_interval_of_none_and_all_ends_exactly_at_0_and_1(confidence) -> None:
    for total in range(1, 2000):
        assert wilson_interval(0, total, confidence)[0] == 0.0
        assert wilson_interval(total, total, confidence)[1] == 1.0


def test_wilson_interval_of_no_image_is_unknown() -> None:
    assert all(math.isnan(end) for end in wilson_interval(0, 0))


@pytest.mark.parametrize(("right", "total"), [(-1, 5), (6, 5)])
def test_wilson_interval_of_impossible_counts_is_an_error(right, total) -> None:
    with pytest.raises(ValueError, match=f"got {right} of {total}"):
        wilson_interval(right, total)


def test_difference_interval_covers_the_true_difference_of_paired_accuracies() -> None:
    rng = np.random.default_rng(0)
    for wins, losses in ((0.02, 0.01), (0.1, 0.05), (0.3, 0.1)):
        counts = rng.multinomial(250, [wins, losses, 1 - wins - losses], size=2000)
        intervals = [difference_interval(w, lost, 250) for w, lost, _ in counts.tolist()]
        covered = np.mean([low <= wins - losses <= high for low, high in intervals])
        assert 0.93 < covered < 0.99


def test_difference_interval_has_a_width_without_a_different_image() -> None:
    low, high = difference_interval(0, 0, 100)
    assert low == -high and 0.01 < high < 0.03
    assert (
        difference_interval(3, 1, 100)
        == tuple(-end for end in difference_interval(1, 3, 100))[::-1]
    )
    assert all(math.isnan(end) for end in difference_interval(0, 0, 0))
