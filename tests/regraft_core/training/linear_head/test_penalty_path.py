"""Starts of fits on a path of penalties."""

from __future__ import annotations

import numpy as np

from regraft_core.training.linear_head.linear_classifier import Weights
from regraft_core.training.linear_head.linear_problem import Problem, principal_axes
from regraft_core.training.linear_head.logistic_regression import MULTINOMIAL
from regraft_core.training.linear_head.penalty_path import Solution, predict_solution


def test_a_path_starts_each_fit_near_its_solution() -> None:
    """Nearer than the solution before, for which a fit takes more steps."""
    rows = np.random.default_rng(0).normal(size=(60, 90)).astype(np.float32)
    targets = np.eye(3)[np.arange(60) % 3]
    rows[:, :3] += 2 * targets
    axes = principal_axes(rows)
    problem = Problem([axes.coordinates], targets, np.ones(len(rows)), axes.squares)
    prior = MULTINOMIAL.prior(targets, len(axes.squares))
    path: list[Solution] = []
    steps: dict[str, int] = {}
    for penalty in (1e-2, 3e-3, 1e-3, 3e-4, 1e-4):
        for name, known in (("last", path[-1:]), ("line", path)):
            taken: list[None] = []
            start = predict_solution(known, penalty, prior)
            found = MULTINOMIAL.solve(problem, penalty, start, lambda done=taken: done.append(None))
            steps[name] = steps.get(name, 0) + len(taken)
        path.append(Solution(penalty, found))
    assert steps["line"] < 0.7 * steps["last"]


def test_the_start_without_two_solutions_is_the_last_one_or_the_prior() -> None:
    prior, one = Weights(np.zeros((2, 2)), np.zeros(2)), Weights(np.eye(2), np.ones(2))
    assert predict_solution([], 0.1, prior) is prior
    assert predict_solution([Solution(1.0, one)], 0.1, prior) is one
    assert predict_solution([Solution(1.0, prior), Solution(1.0, one)], 0.1, prior) is one
    further = predict_solution([Solution(1.0, prior), Solution(0.1, one)], 0.001, prior)
    np.testing.assert_allclose(further.kernel, 3 * np.eye(2))
