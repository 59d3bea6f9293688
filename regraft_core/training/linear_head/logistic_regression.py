"""Multinomial logistic regression with an L2 penalty, solved to convergence by L-BFGS.

The rows are turned to their principal axes first. That changes neither the penalty nor the
solution, and rows fewer than features need no more axes than rows: the weights of the solution are
in the span of the rows. On these axes the curvature of the loss is nearly diagonal, so that each
axis gets its own scale, and L-BFGS needs tens of steps where it would need thousands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh
from scipy.optimize import minimize
from scipy.special import log_softmax

from regraft_core.training.linear_head.linear_classifier import Scaling, Weights

# Axes with less than this fraction of the longest one's length are rounding errors.
SHORTEST_AXIS = 1e-6
MAX_STEPS = 500
# L-BFGS stops when a step lowers the mean loss by less than this fraction of it, or when the
# gradient on the scaled axes is below the tolerance. Their limit is the precision of float32.
LOSS_TOLERANCE, GRADIENT_TOLERANCE = 1e-7, 1e-5
# Values of rows that are converted to float32 at a time.
BLOCK_VALUES = 1 << 24


@dataclass(frozen=True)
class Axes:
    """Principal axes: `basis` float32 [width, r], orthonormal, and the mean squares on each."""

    basis: NDArray[np.float32]
    squares: NDArray[np.float64]


@dataclass(frozen=True)
class Problem:
    """What is minimized: rows, in parts of [m, width], their soft targets [n, k] and weights [n].

    With `scaling`, rows are stored features, scaled block by block, so that they need not fit in
    memory as float32. `squares` are the mean squares on `axes`, or without axes those of the rows.
    """

    parts: Sequence[NDArray[Any]]
    targets: NDArray[np.float64]
    weights: NDArray[np.float64]
    squares: NDArray[np.float64]
    scaling: Scaling | None = None
    axes: Axes | None = None

    def blocks(self) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Yield the rows as they are multiplied by the kernel, with their place."""
        done = 0
        for part in self.parts:
            size = max(BLOCK_VALUES // max(part.shape[1], 1), 1)
            for first in range(0, len(part), size):
                rows = part[first : first + size]
                place = slice(done + first, done + first + len(rows))
                yield place, rows if self.scaling is None else self.scaling.apply(rows)
            done += len(part)


def principal_axes(rows: NDArray[np.float32]) -> Axes:
    """Return the axes of the span of scaled rows [n, width], the longest first."""
    count, width = rows.shape
    transposed = count < width
    products = (rows @ rows.T if transposed else rows.T @ rows).astype(np.float64)
    squares, vectors = eigh(products, overwrite_a=True, check_finite=False)
    kept = squares > max(float(squares[-1]), 0.0) * SHORTEST_AXIS
    squares, vectors = squares[kept][::-1], vectors[:, kept][:, ::-1]
    basis = vectors.astype(np.float32)
    if transposed:
        basis = rows.T @ (vectors / np.sqrt(squares)).astype(np.float32)
    return Axes(np.ascontiguousarray(basis), squares / max(count, 1))


def prior_weights(targets: NDArray[np.float64], width: int) -> Weights:
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
    classes = problem.targets.shape[1]
    total = problem.weights.sum()
    curvature = _curvature(problem, start)
    # The Hessian is about the curvature times the squares, plus the penalty.
    scale = 1.0 / np.sqrt(curvature * problem.squares + penalty)
    bias_scale = 1.0 / np.sqrt(curvature)
    axes = problem.axes

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        matrix = flat.reshape(-1, classes)
        kernel, bias = matrix[:-1] * scale[:, None], matrix[-1] * bias_scale
        inner = kernel.astype(np.float32)
        used = inner if axes is None else axes.basis @ inner
        value, gradient, bias_gradient = 0.0, np.zeros(used.shape), np.zeros(classes)
        for place, rows in problem.blocks():
            logs = log_softmax((rows @ used).astype(np.float64) + bias, axis=1)
            targets, weights = problem.targets[place], problem.weights[place, None] / total
            value -= float((weights * targets * logs).sum())
            errors = weights * (np.exp(logs) * targets.sum(axis=1, keepdims=True) - targets)
            gradient += rows.T @ errors.astype(np.float32)
            bias_gradient += errors.sum(axis=0)
        if axes is not None:
            gradient = axes.basis.T @ gradient
        value += 0.5 * penalty * float(np.square(kernel).sum())
        gradient = (gradient + penalty * kernel) * scale[:, None]
        return value, np.vstack([gradient, bias_gradient * bias_scale]).ravel()

    first = np.vstack([start.kernel / scale[:, None], start.bias / bias_scale])
    result = minimize(
        loss, first.ravel(), jac=True, method="L-BFGS-B", callback=lambda weights: step(),
        options={"maxiter": MAX_STEPS, "maxcor": 20, "ftol": LOSS_TOLERANCE,
                 "gtol": GRADIENT_TOLERANCE},
    )  # fmt: skip
    matrix = result.x.reshape(-1, classes)
    bias = matrix[-1] * bias_scale
    return Weights(matrix[:-1] * scale[:, None], bias - bias.mean())


def _curvature(problem: Problem, start: Weights) -> float:
    """Return the mean curvature of the cross-entropy in the logits, at the start."""
    classes = problem.targets.shape[1]
    certain = 0.0
    kernel = start.kernel if problem.axes is None else problem.axes.basis @ start.kernel
    for place, rows in problem.blocks():
        logs = log_softmax(Weights(kernel, start.bias).logits(rows), axis=1)
        certain += float((problem.weights[place] * np.exp(2.0 * logs).sum(axis=1)).sum())
    uncertain = 1.0 - certain / problem.weights.sum()
    return max(uncertain / classes, 1e-4)
