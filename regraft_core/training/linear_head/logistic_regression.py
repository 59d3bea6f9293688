"""Multinomial logistic regression with an L2 penalty, solved to convergence."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from regraft_core.training.linear_head.linear_classifier import Weights
from regraft_core.training.linear_head.linear_problem import Problem
from regraft_core.training.linear_head.loss_minimization import (
    LossPart,
    PenalizedLoss,
    Solver,
    logits_of,
    loss_part,
    make_coordinates,
    minimize_loss,
)

Floats = NDArray[np.float64]
# The precision of float32, and of many rows of many features, whose steps take long, less: what a
# fit still lacks then is far below what the choice of the rows changes.
LOSS_TOLERANCE, LONG_TOLERANCE = 1e-7, 1e-5


def prior_weights(targets: Floats, width: int) -> Weights:
    """Return the best classifier without features: the log of each class's frequency."""
    smoothed = targets.sum(axis=0) + 1.0
    return Weights(np.zeros((width, targets.shape[1])), np.log(smoothed / smoothed.sum()))


def solve(
    problem: Problem, penalty: float, start: Weights, step: Callable[[], object] = lambda: None
) -> Weights:
    """Minimize the weighted mean cross-entropy + penalty / 2 * the kernel's sum of squares.

    The bias is not penalized. `start` and the result are on the axes. `step` is called after each
    step.
    """

    def of_kernel(kernel: Floats) -> tuple[float, Floats]:
        return 0.5 * penalty * float(np.square(kernel).sum()), penalty * kernel

    curvature = _curvature(problem, start)
    # The Hessian is about the curvature times the squares, plus the penalty.
    space = make_coordinates(curvature * problem.squares, penalty)
    tolerance = LOSS_TOLERANCE if problem.squares.ndim == 1 else LONG_TOLERANCE
    loss = PenalizedLoss(
        cross_entropy_of, (problem.weights.sum(),), of_kernel, space, 1.0 / np.sqrt(curvature),
        tolerance,
    )  # fmt: skip
    found = minimize_loss(problem, loss, start, step)
    return Weights(found.kernel, found.bias - found.bias.mean())


def _curvature(problem: Problem, start: Weights) -> float:
    """Return the mean curvature of the cross-entropy in the logits, at the start."""
    kernel = start.kernel if problem.axes is None else problem.axes.basis @ start.kernel
    sum_certain = sum(problem.blocks.map(certainty_of, kernel, start.bias))
    return max((1.0 - sum_certain / problem.weights.sum()) / problem.targets.shape[1], 1e-4)


def cross_entropy_of(
    rows: NDArray[np.float32], targets: Floats, weights: Floats, kernel: NDArray[np.float32],
    bias: Floats, total: float,
) -> LossPart:  # fmt: skip
    """Return the part of the weighted mean cross-entropy of a block; `total` is of all weights."""
    logs = log_softmax(logits_of(rows, kernel, bias), axis=1)
    fractions = weights[:, None] / total
    errors = fractions * (np.exp(logs) * targets.sum(axis=1, keepdims=True) - targets)
    return loss_part(rows, -float((fractions * targets * logs).sum()), errors)


def certainty_of(
    rows: NDArray[np.float32], targets: Floats, weights: Floats, kernel: Floats, bias: Floats
) -> float:
    """Return the weighted sum of the squared probabilities of a block's rows."""
    squares = np.exp(2.0 * log_softmax(Weights(kernel, bias).logits(rows), axis=1)).sum(axis=1)
    return float((weights * squares).sum())


MULTINOMIAL = Solver(prior_weights, solve)
