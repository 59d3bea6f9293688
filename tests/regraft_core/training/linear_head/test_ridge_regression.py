"""Ridge regression: held-out scores, either system, stored parts, weights."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from regraft_core.training.linear_head import row_blocks
from regraft_core.training.linear_head.linear_classifier import Scaling
from regraft_core.training.linear_head.ridge_regression import (
    ClosedForm,
    RidgeFolds,
    RidgeSystem,
)

Floats = NDArray[np.float64]
WIDTH, CLASSES, PENALTY = 6, 3, 0.03
METHODS: dict[ClosedForm, float] = {"ridge": 0.1, "discriminant": 1.0}


def problem(count: int = 40) -> tuple[NDArray[np.float32], Floats, Floats]:
    """Return rows, targets and weights; their means are not zero."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, count)
    rows = (rng.normal(size=(count, WIDTH)) + np.eye(WIDTH)[labels] + 2).astype(np.float32)
    return rows, np.eye(CLASSES)[labels], rng.uniform(0.2, 3, count)


def unscaled(width: int = WIDTH) -> Scaling:
    return Scaling(np.zeros(width, np.float32), np.ones(width, np.float32))


def loss(kernel: Floats, bias: Floats, rows: Floats, targets: Floats, weights: Floats) -> float:
    errors = np.square(rows @ kernel + bias - targets).sum(axis=1)
    return float(np.average(errors, weights=weights) + PENALTY * np.square(kernel).sum())


@pytest.mark.parametrize("count", [40, 5])
def test_no_other_weights_have_a_lower_loss(count: int) -> None:
    """With more rows than features, and with fewer."""
    rows, targets, weights = problem(count)
    fitted = RidgeSystem([rows], targets, weights, unscaled()).fit(PENALTY)
    wide = rows.astype(np.float64)
    best = loss(fitted.kernel, fitted.bias, wide, targets, weights)
    rng = np.random.default_rng(1)
    for _ in range(20):
        kernel = fitted.kernel + rng.normal(0, 0.01, fitted.kernel.shape)
        bias = fitted.bias + rng.normal(0, 0.01, CLASSES)
        assert loss(kernel, bias, wide, targets, weights) > best


def test_parts_blocks_and_scaling_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, targets, weights = problem()
    whole = RidgeSystem([rows], targets, weights, unscaled()).fit(PENALTY)
    monkeypatch.setattr(row_blocks, "BLOCK_VALUES", 7 * WIDTH)
    scaling = Scaling(rows.mean(axis=0), np.full(WIDTH, 2.0, np.float32))
    stored = (rows / 2 + rows.mean(axis=0)).astype(np.float32)
    parts = RidgeSystem([stored[:9], stored[9:]], targets, weights, scaling).fit(PENALTY)
    np.testing.assert_allclose(parts.kernel, whole.kernel, atol=1e-5)
    np.testing.assert_allclose(parts.bias, whole.bias, atol=1e-5)


@pytest.mark.parametrize("lowest", [1.0, 0.5])
def test_held_out_scores_are_those_of_fits_without_the_fold(lowest: float) -> None:
    rows, targets, _ = problem()
    fold_of, weights = np.arange(40) % 4, np.linspace(lowest, 1.0, 40)
    scores = RidgeFolds(rows, targets, weights, fold_of).scores(PENALTY)
    # Centers are those of all rows, which differ little from those of the rows kept.
    for method, tolerance in METHODS.items():
        for fold in range(4):
            kept = fold_of != fold
            system = RidgeSystem([rows[kept]], targets[kept], weights[kept], unscaled())
            fitted = system.fit(PENALTY, method)
            found, expected = (
                one - one.mean(axis=1, keepdims=True)
                for one in (scores[method][~kept], fitted.logits(rows[~kept]))
            )
            np.testing.assert_allclose(found, expected, atol=tolerance)


@pytest.mark.parametrize("count", [60, 12])
def test_discriminant_analysis_equals_that_with_the_penalty_on_the_covariance(count: int) -> None:
    """With more rows than features, and with fewer; logits up to a constant of each row."""
    width = 30
    rng = np.random.default_rng(0)
    labels = np.arange(count) % 4
    rows = (rng.normal(size=(count, width)) + 2 * np.eye(width)[labels] + 3).astype(np.float32)
    weights = rng.uniform(0.5, 2, count)
    system = RidgeSystem([rows], np.eye(4)[labels], weights, unscaled(width))
    fitted = system.fit(PENALTY, "discriminant")
    frequencies = np.bincount(labels, weights) / weights.sum()
    means = np.stack([np.average(rows[labels == k], 0, weights[labels == k]) for k in range(4)])
    within = np.cov((rows - means[labels]).T, aweights=weights, bias=True)
    directions = np.linalg.solve(within + PENALTY * np.eye(width), means.T)
    expected = rows @ directions - (means.T * directions).sum(0) / 2 + np.log(frequencies)
    found = fitted.logits(rows)
    found, expected = (one - one.mean(axis=1, keepdims=True) for one in (found, expected))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_discriminant_analysis_has_the_directions_of_scikit_learn() -> None:
    """Its shrinkage adds a multiple of the mean variance, and makes the rest smaller."""
    rows, targets, _ = problem(200)
    labels, shrinkage = targets.argmax(axis=1), 0.3
    theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage).fit(rows, labels)
    shift = np.stack([rows[labels == k].mean(axis=0) for k in range(CLASSES)])[labels]
    variance = float((rows - shift).var(axis=0).mean())
    penalty = shrinkage / (1 - shrinkage) * variance
    system = RidgeSystem([rows], targets, np.ones(200), unscaled())
    ours = system.fit(penalty, "discriminant")
    found, expected = (
        kernel - kernel.mean(axis=1, keepdims=True)
        for kernel in (ours.kernel / (1 - shrinkage), theirs.coef_.T)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_equal_features_leave_the_class_frequencies() -> None:
    targets = np.eye(2)[[0, 0, 1]]
    fitted = RidgeSystem([np.ones((3, 4), np.float32)], targets, np.ones(3), unscaled(4)).fit(1e-3)
    assert np.abs(fitted.kernel).max() < 1e-6
    np.testing.assert_allclose(fitted.bias, [2 / 3, 1 / 3], atol=1e-6)


@pytest.mark.parametrize("count", [40, 5])
def test_fits_of_one_system_do_not_depend_on_each_other(count: int) -> None:
    rows, targets, weights = problem(count)
    system = RidgeSystem([rows], targets, weights, unscaled())
    first = system.fit(PENALTY)
    system.fit(10 * PENALTY, "discriminant")
    np.testing.assert_array_equal(system.fit(PENALTY).kernel, first.kernel)
