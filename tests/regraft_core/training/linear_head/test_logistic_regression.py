"""The solver: equal to scikit-learn's, on axes, in blocks, and for rows fewer than features."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from regraft_core.training.linear_head import (
    logistic_regression,
    row_blocks,
)
from regraft_core.training.linear_head.linear_classifier import Scaling, Weights
from regraft_core.training.linear_head.linear_problem import (
    Axes,
    Problem,
    principal_axes,
)
from regraft_core.training.linear_head.logistic_regression import prior_weights, solve
from regraft_core.training.linear_head.row_blocks import split_blocks

CLASSES = 3
PENALTY = 1e-3


def sample(count: int, width: int) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Return correlated features of very different variance, and noisy labels."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(count, width)) * np.geomspace(1, 0.03, width)
    rows = rows @ np.linalg.qr(rng.normal(size=(width, width)))[0]
    logits = 3 * rows @ rng.normal(size=(width, CLASSES)) + rng.gumbel(size=(count, CLASSES))
    return rows.astype(np.float32), logits.argmax(axis=1).astype(np.int32)


def reference(rows: NDArray[np.float32], labels: NDArray[np.int32], **options: object) -> Weights:
    fitted = LogisticRegression(C=1 / (PENALTY * len(rows)), tol=1e-8, max_iter=10_000, **options)
    fitted.fit(rows.astype(np.float64), labels)
    return Weights(fitted.coef_.T, fitted.intercept_ - fitted.intercept_.mean())


@pytest.mark.parametrize(("count", "width"), [(200, 20), (60, 150)])
def test_the_solution_is_that_of_scikit_learn(count: int, width: int) -> None:
    rows, labels = sample(count, width)
    axes = principal_axes(rows)
    assert axes.basis.shape == (width, min(count, width))
    np.testing.assert_allclose(axes.basis.T @ axes.basis, np.eye(min(count, width)), atol=1e-4)
    problem = Problem([rows @ axes.basis], np.eye(CLASSES)[labels], np.ones(count), axes.squares)
    found = solve(problem, PENALTY, prior_weights(problem.targets, min(count, width)))
    expected = reference(rows, labels)
    np.testing.assert_allclose(axes.basis @ found.kernel, expected.kernel, atol=0.02)
    np.testing.assert_allclose(found.bias, expected.bias, atol=0.02)


@pytest.mark.parametrize(("count", "width"), [(200, 20), (60, 150)])
def test_coordinates_and_classifiers_are_those_on_the_principal_axes(
    count: int, width: int
) -> None:
    rows, _ = sample(count, width)
    axes = principal_axes(rows)
    coordinates = axes.coordinates
    np.testing.assert_allclose(coordinates, rows @ axes.basis, atol=1e-4)
    np.testing.assert_allclose(axes.squares, np.square(coordinates).mean(axis=0), rtol=1e-4)
    rng = np.random.default_rng(0)
    weights = Weights(rng.normal(size=(len(axes.squares), 3)), rng.normal(size=3))
    features = axes.to_features(weights)
    np.testing.assert_allclose(features.logits(rows), weights.logits(coordinates), atol=1e-3)
    np.testing.assert_allclose(axes.of_features(features).kernel, weights.kernel, atol=1e-3)
    np.testing.assert_allclose(features.kernel, axes.basis @ weights.kernel, atol=1e-4)
    few = axes.longest(5)
    np.testing.assert_allclose(few.basis, axes.basis[:, :5], atol=1e-5)
    np.testing.assert_array_equal(few.squares, axes.squares[:5])


def test_stored_rows_in_parts_and_blocks_have_the_same_solution(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows, labels = sample(120, 10)
    scaling = Scaling(rows.mean(axis=0), np.full(10, 0.7, np.float32))
    scaled = scaling.apply(rows)
    axes = principal_axes(scaled)
    targets, weights = np.eye(CLASSES)[labels], np.linspace(0.5, 2.0, 120)
    start = prior_weights(targets, 10)
    whole = solve(Problem([scaled @ axes.basis], targets, weights, axes.squares), PENALTY, start)
    monkeypatch.setattr(row_blocks, "BLOCK_VALUES", 70)
    parts = [rows[:50].astype(np.float64), rows[50:].astype(np.float64)]
    in_blocks = Problem(parts, targets, weights, axes.squares, scaling, axes)
    assert len(split_blocks(in_blocks.parts)) == 18
    found = solve(in_blocks, PENALTY, start)
    np.testing.assert_allclose(found.kernel, whole.kernel, atol=5e-3)
    plain = Problem(parts, targets, weights, np.square(scaled).mean(axis=0), scaling)
    without_axes = solve(plain, PENALTY, start)
    np.testing.assert_allclose(without_axes.kernel, axes.basis @ whole.kernel, atol=2e-2)
    products = (scaled.T @ scaled).astype(np.float64) / 120
    # With products it stops earlier, as fits of many rows would take long.
    monkeypatch.setattr(logistic_regression, "LONG_TOLERANCE", logistic_regression.LOSS_TOLERANCE)
    by_products = solve(replace(plain, squares=products), PENALTY, start)
    np.testing.assert_allclose(by_products.kernel, axes.basis @ whole.kernel, atol=5e-3)


def test_products_of_features_need_fewer_steps_than_squares() -> None:
    rows, labels = sample(400, 40)
    targets, products = np.eye(CLASSES)[labels], (rows.T @ rows).astype(np.float64) / 400
    steps: dict[str, int] = {}
    for name, squares in (("squares", np.diag(products).copy()), ("products", products)):
        problem = Problem([rows], targets, np.ones(400), squares)
        count = itertools.count(1)
        solve(problem, 1e-5, prior_weights(targets, 40), lambda count=count: next(count))
        steps[name] = next(count)
    assert 2 * steps["products"] < steps["squares"]


def test_the_solution_does_not_depend_on_the_number_of_cores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows, labels = sample(200, 10)
    monkeypatch.setattr(row_blocks, "BLOCK_VALUES", 70)
    squares = np.square(rows).mean(axis=0).astype(np.float64)
    problem = Problem([rows], np.eye(CLASSES)[labels], np.ones(200), squares)
    found = []
    for cores in (1, 3):
        monkeypatch.setattr(row_blocks, "available_cores", lambda cores=cores: cores)
        found.append(solve(problem, PENALTY, prior_weights(problem.targets, 10)))
    np.testing.assert_array_equal(found[0].kernel, found[1].kernel)
    np.testing.assert_array_equal(found[0].bias, found[1].bias)


def test_weights_of_rows_count_like_repeated_rows() -> None:
    rows, labels = sample(60, 5)
    twice = np.r_[np.arange(60), np.arange(20)]
    weights = np.r_[np.full(20, 2.0), np.ones(40)]
    targets = np.eye(CLASSES)[labels]
    squares = np.square(rows).mean(axis=0).astype(np.float64)
    start = prior_weights(targets, 5)
    weighted = solve(Problem([rows], targets, weights, squares), PENALTY, start)
    repeated = solve(Problem([rows[twice]], targets[twice], np.ones(80), squares), PENALTY, start)
    np.testing.assert_allclose(weighted.kernel, repeated.kernel, atol=5e-3)


def test_equal_rows_have_no_axes_and_get_the_class_frequencies() -> None:
    rows = np.zeros((4, 3), np.float32)
    axes = principal_axes(rows)
    assert isinstance(axes, Axes)
    assert axes.basis.shape == (3, 0)
    targets = np.eye(2)[[0, 0, 0, 1]]
    problem = Problem([rows @ axes.basis], targets, np.ones(4), axes.squares)
    found = solve(problem, PENALTY, prior_weights(targets, 0))
    logits = found.logits(rows @ axes.basis)
    np.testing.assert_allclose(np.exp(logits[:, 0] - logits[:, 1]), 3.0, rtol=1e-2)
