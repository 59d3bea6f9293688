"""Losses of two models on the same images."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import ttest_rel

from regraft_core.training.paired_losses import (
    SIGNIFICANCE,
    PairedLosses,
    compare_losses,
    no_room,
    room_below,
)


@pytest.mark.parametrize("shift", [0.0, -0.02, -0.05, 0.05])
def test_better_is_a_paired_t_test(shift: float) -> None:
    rng = np.random.default_rng(0)
    others = rng.exponential(1.0, 100)
    losses = others + shift + rng.normal(0, 0.2, 100)
    found = compare_losses(losses, others)
    test = ttest_rel(losses, others, alternative="less")
    assert found.difference / found.standard_error == pytest.approx(test.statistic)
    assert found.better is bool(test.pvalue < SIGNIFICANCE)


@pytest.mark.parametrize(
    ("difference", "promising"), [(-0.021, True), (-0.019, False), (0.1, False)]
)
def test_promising_is_a_gain_of_a_standard_error(difference: float, promising: bool) -> None:
    assert PairedLosses(50, difference, 0.02).promising is promising


def test_equal_losses_are_not_better() -> None:
    found = compare_losses(np.ones(9), np.ones(9))
    assert (found.difference, found.standard_error) == (0.0, 0.0)
    assert not found.better and not found.promising
    assert str(found) == "+0.0000 ± 0.0000"


@pytest.mark.parametrize("losses", [[0.1], [math.nan, 0.1], [math.inf, 0.1]])
def test_losses_that_show_nothing_are_not_better(losses: list[float]) -> None:
    with np.errstate(invalid="ignore"):
        assert not compare_losses(np.array(losses), np.full(len(losses), 9.0)).better


def test_few_or_small_losses_leave_no_room_for_a_better_model() -> None:
    rng = np.random.default_rng(0)
    assert room_below(rng.exponential(0.5, 100)).better
    assert not room_below(np.array([0.1, 0.0, 0.2, 2.0])).better
    one_error = np.full(300, 1e-4)
    one_error[7] = 3.0
    assert not room_below(one_error).better
    assert "log loss -0.0101 ± 0.0100" in no_room("top", room_below(one_error))


@pytest.mark.parametrize(("trainings", "better"), [(1, True), (5, True), (20, False)])
def test_the_best_of_many_trainings_needs_a_larger_gain(trainings: int, better: bool) -> None:
    assert PairedLosses(200, -0.05, 0.02, trainings).better is better
