"""Multinomial logistic regression with an L2 penalty, solved to convergence."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from regraft_core.runtime.machine import available_cores
from regraft_core.training.linear_head.linear_classifier import Weights
from regraft_core.training.linear_head.linear_problem import Block, Problem
from regraft_core.training.linear_head.loss_minimization import (
    PenalizedLoss,
    Solver,
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
    total = problem.weights.sum()

    def of_logits(logits: Floats, place: slice) -> tuple[float, Floats]:
        logs = log_softmax(logits, axis=1)
        targets = problem.targets[place]
        weights = problem.weights[place, None] / total
        errors = weights * (np.exp(logs) * targets.sum(axis=1, keepdims=True) - targets)
        return -float((weights * targets * logs).sum()), errors

    def of_kernel(kernel: Floats) -> tuple[float, Floats]:
        return 0.5 * penalty * float(np.square(kernel).sum()), penalty * kernel

    curvature = _curvature(problem, start)
    # The Hessian is about the curvature times the squares, plus the penalty.
    space = make_coordinates(curvature * problem.squares, penalty)
    tolerance = LOSS_TOLERANCE if problem.squares.ndim == 1 else LONG_TOLERANCE
    loss = PenalizedLoss(of_logits, of_kernel, space, 1.0 / np.sqrt(curvature), tolerance)
    found = minimize_loss(problem, loss, start, step)
    return Weights(found.kernel, found.bias - found.bias.mean())


def _curvature(problem: Problem, start: Weights) -> float:
    """Return the mean curvature of the cross-entropy in the logits, at the start."""
    kernel = start.kernel if problem.axes is None else problem.axes.basis @ start.kernel

    def certain(block: Block) -> float:
        logits = Weights(kernel, start.bias).logits(problem.scaled(block.rows))
        squares = np.exp(2.0 * log_softmax(logits, axis=1)).sum(axis=1)
        return float((problem.weights[block.place] * squares).sum())

    with ThreadPoolExecutor(available_cores()) as threads:
        sum_certain = sum(threads.map(certain, problem.blocks()))
    return max((1.0 - sum_certain / problem.weights.sum()) / problem.targets.shape[1], 1e-4)


MULTINOMIAL = Solver(prior_weights, solve)
