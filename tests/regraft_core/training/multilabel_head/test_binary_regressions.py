"""One logistic regression per label: equal to scikit-learn's, solved together or alone."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from regraft_core.training.linear_head import row_blocks
from regraft_core.training.linear_head.linear_classifier import Weights
from regraft_core.training.linear_head.linear_problem import Problem, principal_axes
from regraft_core.training.linear_head.row_blocks import split_blocks
from regraft_core.training.multilabel_head import binary_regressions
from regraft_core.training.multilabel_head.binary_regressions import (
    binary_losses,
    prior_classifiers,
    solve_labels,
)

PENALTIES = np.array([1e-3, 1e-2, 1e-3, 1e-4])
RARE = 2


def sample(count: int, width: int) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return correlated features of very different variance, and labels, one of them rare."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(count, width)) * np.geomspace(1, 0.03, width)
    rows = rows @ np.linalg.qr(rng.normal(size=(width, width)))[0]
    logits = 3 * rows @ rng.normal(size=(width, 4)) + rng.logistic(size=(count, 4))
    logits[:, RARE] -= np.quantile(logits[:, RARE], 0.97)
    return rows.astype(np.float32), (logits > 0).astype(np.float64)


def solve(rows: NDArray[np.float32], targets: NDArray[np.float64], *columns: int) -> Weights:
    axes, chosen = principal_axes(rows), list(columns or range(4))
    problem = Problem([rows @ axes.basis], targets[:, chosen], np.ones(len(rows)), axes.squares)
    start = prior_classifiers(problem.targets, len(axes.squares))
    found = solve_labels(problem, PENALTIES[chosen], start)
    return Weights(axes.basis @ found.kernel, found.bias)


@pytest.mark.parametrize(("count", "width"), [(300, 20), (120, 200)])
def test_the_solution_is_that_of_scikit_learn(count: int, width: int) -> None:
    rows, targets = sample(count, width)
    found = solve(rows, targets)
    for column, penalty in enumerate(PENALTIES):
        reference = LogisticRegression(C=1 / (penalty * count), tol=1e-10, max_iter=10_000)
        reference.fit(rows.astype(np.float64), targets[:, column])
        np.testing.assert_allclose(found.kernel[:, column], reference.coef_[0], atol=5e-3)
        np.testing.assert_allclose(
            expit(found.logits(rows)[:, column]), reference.predict_proba(rows)[:, 1], atol=1e-3
        )


def test_labels_in_parts_have_the_same_solution(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, targets = sample(300, 20)
    expected = solve(rows, targets)
    monkeypatch.setattr(binary_regressions, "MOST_VALUES", 3 * 20)  # of four labels
    np.testing.assert_allclose(solve(rows, targets).kernel, expected.kernel, atol=5e-3)


def test_products_of_features_and_blocks_have_the_same_solution(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows, targets = sample(150, 12)
    expected = solve(rows, targets)
    monkeypatch.setattr(row_blocks, "BLOCK_VALUES", 12 * 40)
    products = (rows.T @ rows).astype(np.float64) / len(rows)
    problem = Problem([rows[:70], rows[70:]], targets, np.ones(150), products)
    assert len(split_blocks(problem.parts)) == 4
    found = solve_labels(problem, PENALTIES, prior_classifiers(targets, 12))
    np.testing.assert_allclose(found.kernel, expected.kernel, atol=5e-3)
    np.testing.assert_allclose(found.bias, expected.bias, atol=5e-3)


def test_labels_do_not_influence_each_other() -> None:
    rows, targets = sample(150, 12)
    together, alone = solve(rows, targets), solve(rows, targets, RARE)
    np.testing.assert_allclose(together.kernel[:, RARE], alone.kernel[:, 0], atol=2e-3)


def test_a_label_of_all_or_no_rows_has_finite_weights() -> None:
    rows, targets = sample(80, 6)
    targets[:, 0], targets[:, 1] = 1.0, 0.0
    found = solve(rows, targets)
    assert np.isfinite(found.kernel).all()
    probabilities = expit(found.logits(rows))
    assert probabilities[:, 0].min() > 0.99
    assert probabilities[:, 1].max() < 0.01


def test_loss_of_logits() -> None:
    losses = binary_losses(np.array([[0.0, 800.0, -800.0]]), np.array([[1, 1, 1]]))
    np.testing.assert_allclose(losses, [[np.log(2), 0.0, 800.0]])
