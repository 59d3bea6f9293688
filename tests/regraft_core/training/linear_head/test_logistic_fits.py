"""Logistic regressions of all rows, from penalty to penalty and from other rows' solutions."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

from regraft_core.runtime.machine import available_cores
from regraft_core.training.linear_head import logistic_fits
from regraft_core.training.linear_head.head_rows import HeadRows, scalings
from regraft_core.training.linear_head.linear_classifier import Weights
from regraft_core.training.linear_head.linear_problem import Problem, principal_coordinates
from regraft_core.training.linear_head.logistic_fits import LogisticFits, held_out_logits
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


def test_held_out_logits_are_those_of_fits_without_the_fold() -> None:
    random = np.random.default_rng(0)
    rows = random.normal(size=(60, 90)).astype(np.float32)
    labels = np.arange(60) % 3
    rows[:, :3] += 2 * np.eye(3)[labels]
    targets, weights, fold_of = np.eye(3)[labels], np.ones(60), np.arange(60) % 4
    penalties = [1.0, 0.1, 0.01]
    path = held_out_logits(rows, targets, weights, fold_of, MULTINOMIAL, penalties)
    coordinates, squares = principal_coordinates(rows)
    for penalty, found in zip(penalties, path, strict=True):
        for fold in range(4):
            kept = fold_of != fold
            problem = Problem([coordinates[kept]], targets[kept], weights[kept], squares)
            start = MULTINOMIAL.prior(targets[kept], len(squares))
            fitted = MULTINOMIAL.solve(problem, penalty, start)
            expected = fitted.logits(coordinates[~kept])
            np.testing.assert_allclose(found[~kept], expected, atol=0.02)


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
    path = held_out_logits(rows, targets, np.ones(40), np.arange(40) % 5, solver, penalties)
    with closing(path):
        next(path)
    assert 5 <= len(started) <= 5 + available_cores()
