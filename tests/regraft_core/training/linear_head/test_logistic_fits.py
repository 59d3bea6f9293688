"""Logistic regressions of all rows, from penalty to penalty and from other rows' solutions."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from regraft_core.runtime.machine import available_cores
from regraft_core.training.linear_head import logistic_fits, logistic_regression
from regraft_core.training.linear_head.head_rows import HeadRows, scalings
from regraft_core.training.linear_head.linear_classifier import Weights
from regraft_core.training.linear_head.linear_problem import Problem, principal_axes
from regraft_core.training.linear_head.logistic_fits import LogisticFits, held_out_regressions
from regraft_core.training.linear_head.logistic_regression import MULTINOMIAL

COUNT, WIDTH = 200, 12


@pytest.mark.parametrize("axes_of", [COUNT, 5])
def test_the_start_does_not_change_the_solution(axes_of: int) -> None:
    """On principal axes, and on the features if the sample's axes do not span all rows."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, COUNT).astype(np.int32)
    values = (rng.normal(size=(COUNT, WIDTH)) + np.eye(WIDTH)[labels]).astype(np.float32)
    rows = HeadRows([values], labels, np.arange(COUNT), values.mean(axis=0), values.var(axis=0),
                    [WIDTH])  # fmt: skip
    scaling = scalings(rows)["level"]
    given = (rows, np.eye(3)[labels], np.ones(COUNT), scaling, np.arange(axes_of), MULTINOMIAL)
    path = LogisticFits(*given)
    weak = path.fit(1e-4)
    strong = path.fit(1e-2)
    assert np.abs(weak.kernel).max() > 1.5 * np.abs(strong.kernel).max()
    for start in (None, weak):
        found = LogisticFits(*given, start).fit(1e-2)
        np.testing.assert_allclose(found.kernel, strong.kernel, atol=0.02)
        np.testing.assert_allclose(found.bias, strong.bias, atol=0.01)


@pytest.mark.parametrize("width", [90, 20])
def test_held_out_logits_are_those_of_fits_without_the_fold(
    width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, targets, fold_of = folded_rows(width)
    penalties, weights = [1.0, 0.1, 0.01], np.ones(len(rows))
    path = list(held_out_regressions(rows, targets, weights, fold_of, MULTINOMIAL, penalties))
    # From no solution, the fit with the weakest penalty would stop further from its own.
    monkeypatch.setattr(logistic_regression, "LOSS_TOLERANCE", 1e-9)
    axes = principal_axes(rows)
    coordinates = axes.coordinates
    for penalty, found in zip(penalties, path, strict=True):
        kernels = []
        for fold in range(4):
            kept = fold_of != fold
            problem = Problem([coordinates[kept]], targets[kept], weights[kept], axes.squares)
            start = MULTINOMIAL.prior(targets[kept], len(axes.squares))
            fitted = MULTINOMIAL.solve(problem, penalty, start)
            expected = fitted.logits(coordinates[~kept])
            np.testing.assert_allclose(found.logits[~kept], expected, atol=0.02)
            kernels.append(axes.basis @ fitted.kernel)
        np.testing.assert_allclose(found.mean.kernel, np.mean(kernels, axis=0), atol=0.01)


def folded_rows(width: int) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.int64]]:
    """Return 60 rows of three classes, their targets and folds."""
    rows = np.random.default_rng(0).normal(size=(60, width)).astype(np.float32)
    targets = np.eye(3)[np.arange(60) % 3]
    rows[:, :3] += 2 * targets
    return rows, targets, np.arange(60) % 4


def test_fits_that_are_not_needed_end_with_the_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    started, cancelled = [], threading.Event()

    class Pool(ThreadPoolExecutor):
        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
            super().shutdown(wait=False, cancel_futures=cancel_futures)
            cancelled.set()
            super().shutdown(wait)

    def solve(problem: Problem, penalty: float, start: Weights) -> Weights:
        started.append(penalty)
        assert penalty == penalties[0] or cancelled.wait(60)
        return start

    monkeypatch.setattr(logistic_fits, "ThreadPoolExecutor", Pool)
    rows, targets = np.eye(40, dtype=np.float32), np.eye(2)[np.arange(40) % 2]
    solver = replace(MULTINOMIAL, solve=solve)
    penalties = [10.0**-exponent for exponent in range(10)]
    path = held_out_regressions(rows, targets, np.ones(40), np.arange(40) % 5, solver, penalties)
    with closing(path):
        next(path)
    assert 5 <= len(started) <= 5 + available_cores()
