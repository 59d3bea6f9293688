"""One logistic regression per label, each with an L2 penalty, solved together by L-BFGS.

The labels share the rows and their principal axes, so that one product of matrices serves all of
them. Their losses are independent: the sum of them is least where each of them is. Each label has
its own scale on each axis, because the curvature of its loss depends on how rare it is.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from regraft_core.runtime.machine import available_cores
from regraft_core.training.linear_head.linear_classifier import Weights
from regraft_core.training.linear_head.logistic_regression import (
    Block,
    Coordinates,
    Problem,
    ScaledAxes,
    make_coordinates,
)

Floats = NDArray[np.float64]
MAX_STEPS = 500
# A rare label changes the sum of the losses little, so that the gradient on the scaled axes ends
# the steps, at the precision of products in float32, and not the loss.
LOSS_TOLERANCE, GRADIENT_TOLERANCE = 1e-10, 1e-5
LEAST_CURVATURE = 1e-4


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
    problem: Problem, penalties: Floats, start: Weights, step: Callable[[], object] = lambda: None
) -> Weights:
    """Minimize, for each label, the mean log loss + penalty / 2 * its kernel's sum of squares.

    The biases are not penalized, and all rows weigh the same. `start` and the result are on the
    axes of the problem. `step` is called after each step.

    Args:
        problem: rows, and targets [n, k] in 0..1.
        penalties: of each label, [k].
        start: classifiers to start from.
        step: reports progress.
    """
    count, labels = problem.targets.shape
    frequencies = label_frequencies(problem.targets)
    curvature = np.maximum(frequencies * (1.0 - frequencies), LEAST_CURVATURE)
    space, label_scale = _coordinates(problem, curvature, penalties)
    bias_scale = 1.0 / np.sqrt(curvature)
    axes, blocks = problem.axes, problem.blocks()
    with ThreadPoolExecutor(min(available_cores(), len(blocks)) or 1) as threads:

        def loss(flat: Floats) -> tuple[float, Floats]:
            matrix = flat.reshape(-1, labels)
            kernel, bias = space.kernel(matrix[:-1]) * label_scale, matrix[-1] * bias_scale
            inner = kernel.astype(np.float32)
            used = inner if axes is None else axes.basis @ inner

            def of_block(block: Block) -> tuple[float, NDArray[np.float32], Floats]:
                rows = problem.scaled(block.rows)
                logits = (rows @ used).astype(np.float64) + bias
                targets = problem.targets[block.place]
                errors = (expit(logits) - targets) / count
                value = float(binary_losses(logits, targets).sum()) / count
                return value, rows.T @ errors.astype(np.float32), errors.sum(axis=0)

            value, gradient, bias_gradient = 0.0, np.zeros(used.shape), np.zeros(labels)
            for part, part_gradient, part_bias in threads.map(of_block, blocks):
                value += part
                gradient += part_gradient
                bias_gradient += part_bias
            if axes is not None:
                gradient = axes.basis.T @ gradient
            value += 0.5 * float((penalties * np.square(kernel)).sum())
            gradient = space.gradient((gradient + penalties * kernel) * label_scale)
            return value, np.vstack([gradient, bias_gradient * bias_scale]).ravel()

        first = np.vstack([space.of(start.kernel / label_scale), start.bias / bias_scale])
        result = minimize(
            loss, first.ravel(), jac=True, method="L-BFGS-B", callback=lambda weights: step(),
            options={"maxiter": MAX_STEPS, "maxcor": 20, "ftol": LOSS_TOLERANCE,
                     "gtol": GRADIENT_TOLERANCE},
        )  # fmt: skip
    matrix = result.x.reshape(-1, labels)
    return Weights(space.kernel(matrix[:-1]) * label_scale, matrix[-1] * bias_scale)


def _coordinates(
    problem: Problem, curvature: Floats, penalties: Floats
) -> tuple[Coordinates, Floats]:
    """Return coordinates in which the curvature of each loss is about one, and scales of labels.

    The Hessian of a label is about its curvature times the mean squares or products of the rows,
    plus its penalty.
    """
    if problem.squares.ndim == 1:
        scale = 1.0 / np.sqrt(problem.squares[:, None] * curvature + penalties)
        return ScaledAxes(scale), np.ones(len(curvature))
    middle = curvature.mean()
    factored = make_coordinates(middle * problem.squares, float(penalties.mean()))
    return factored, np.sqrt(middle / curvature)
