"""One logistic regression per label, each with an L2 penalty, solved together by L-BFGS.

The labels share the rows and their principal axes, so that one product of matrices serves all of
them. Their losses are independent: the sum of them is least where each of them is. Each label has
its own scale on each axis, because the curvature of its loss depends on how rare it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from regraft_core.training.linear_head.linear_classifier import Weights
from regraft_core.training.linear_head.linear_problem import Problem
from regraft_core.training.linear_head.loss_minimization import (
    Coordinates,
    LossPart,
    PenalizedLoss,
    ScaledAxes,
    Solver,
    logits_of,
    loss_part,
    make_coordinates,
    minimize_loss,
)

Floats = NDArray[np.float64]
# A rare label changes the sum of the losses little, so that the gradient ends the steps and not the
# loss.
LOSS_TOLERANCE = 1e-10
LEAST_CURVATURE = 1e-4
# Of a kernel that is solved at once: L-BFGS keeps about 50 copies of them, 800 MB.
MOST_VALUES = 1 << 21


def binary_losses(logits: NDArray[np.floating], targets: NDArray[np.number]) -> Floats:
    """Return the log loss of each logit for its target in 0..1, float64 of the same shape."""
    losses: Floats = np.logaddexp(0.0, logits) - logits * targets
    return losses


def label_frequencies(targets: NDArray[np.number]) -> Floats:
    """Return the frequency of each label, [k], with one image more of which half have it."""
    frequencies: Floats = (targets.sum(axis=0) + 0.5) / (len(targets) + 1.0)
    return frequencies


def prior_classifiers(targets: NDArray[np.number], width: int) -> Weights:
    """Return the best classifiers without features: the log odds of each label's frequency."""
    frequencies = label_frequencies(targets)
    return Weights(np.zeros((width, len(frequencies))), np.log(frequencies / (1.0 - frequencies)))


def solve_labels(
    problem: Problem, penalty: Floats | float, start: Weights,
    step: Callable[[], object] = lambda: None,
) -> Weights:  # fmt: skip
    """Minimize, for each label, the mean log loss + penalty / 2 * its kernel's sum of squares.

    The biases are not penalized, and all rows weigh the same. `start` and the result are on the
    axes of the problem. `step` is called after each step. Very many labels are solved in parts, so
    that memory does not grow with them.

    Args:
        problem: rows, and targets [n, k] in 0..1.
        penalty: of each label, [k], or of all of them.
        start: classifiers to start from.
        step: reports progress.
    """
    labels = problem.targets.shape[1]
    each = np.full(labels, penalty)
    at_once = max(MOST_VALUES // len(problem.squares), 1)
    places = [slice(first, first + at_once) for first in range(0, labels, at_once)]
    solved = [
        _solve_together(
            replace(problem, targets=problem.targets[:, place]), each[place],
            Weights(start.kernel[:, place], start.bias[place]), step,
        )
        for place in places
    ]  # fmt: skip
    return Weights(
        np.hstack([one.kernel for one in solved]), np.concatenate([one.bias for one in solved])
    )


def _solve_together(
    problem: Problem, each: Floats, start: Weights, step: Callable[[], object]
) -> Weights:
    """Solve labels, whose penalties are `each` [k], by one minimization."""
    count = len(problem.targets)

    def of_kernel(kernel: Floats) -> tuple[float, Floats]:
        return 0.5 * float((each * np.square(kernel)).sum()), each * kernel

    frequencies = label_frequencies(problem.targets)
    curvature = np.maximum(frequencies * (1.0 - frequencies), LEAST_CURVATURE)
    space = _coordinates(problem, curvature, each)
    loss = PenalizedLoss(
        log_losses_of, (count,), of_kernel, space, 1.0 / np.sqrt(curvature), LOSS_TOLERANCE
    )
    return minimize_loss(problem, loss, start, step)


def log_losses_of(
    rows: NDArray[np.float32], targets: Floats, weights: Floats, kernel: NDArray[np.float32],
    bias: Floats, count: int,
) -> LossPart:  # fmt: skip
    """Return the part of the log losses of all labels of a block; `count` is of all rows."""
    logits = logits_of(rows, kernel, bias)
    value = float(binary_losses(logits, targets).sum()) / count
    return loss_part(rows, value, (expit(logits) - targets) / count)


@dataclass(frozen=True)
class _ScaledLabels:
    """Coordinates that are the same for all labels, but for a scale of each label [k]."""

    shared: Coordinates
    scale: Floats

    def kernel(self, coordinates: Floats) -> Floats:
        return self.shared.kernel(coordinates) * self.scale

    def gradient(self, of_kernel: Floats) -> Floats:
        return self.shared.gradient(of_kernel * self.scale)

    def of(self, kernel: Floats) -> Floats:
        return self.shared.of(kernel / self.scale)


def _coordinates(problem: Problem, curvature: Floats, penalties: Floats) -> Coordinates:
    """Return coordinates in which the curvature of each label's loss is about one.

    The Hessian of a label is about its curvature times the mean squares or products of the rows,
    plus its penalty.
    """
    if problem.squares.ndim == 1:
        return ScaledAxes(1.0 / np.sqrt(problem.squares[:, None] * curvature + penalties))
    middle = curvature.mean()
    shared = make_coordinates(middle * problem.squares, float(penalties.mean()))
    return _ScaledLabels(shared, np.sqrt(middle / curvature))


BINARY = Solver(prior_classifiers, solve_labels)
