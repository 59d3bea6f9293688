"""The minimum of a penalized loss of linear classifiers, by L-BFGS on scaled coordinates.

The rows are turned to their principal axes first. That changes neither the penalty nor the
solution, and rows fewer than features need no more axes than rows: the weights of the solution are
in the span of the rows. On these axes the curvature of the loss is nearly diagonal, so that each
axis gets its own scale, and L-BFGS needs tens of steps where it would need thousands. The axes of
very many features take long to find; then the Cholesky factor of the approximate curvature, which
is quick, takes their place (Nocedal and Wright, Numerical Optimization, 2006, chapter 5).

Blocks of rows are computed on all cores, or by the workers of an executor, and summed in their
order, so that the result depends neither on the number of cores nor on the workers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import minimize

from regraft_core.training.linear_head.linear_classifier import Weights
from regraft_core.training.linear_head.linear_problem import Problem

Floats = NDArray[np.float64]
LossPart = tuple[float, NDArray[np.float32], Floats]
"""The loss of some rows, and its gradients by the kernel [width, k] and by the bias [k]."""
MAX_STEPS = 500
# L-BFGS also stops when the gradient on the scaled coordinates is below this, the precision of
# products in float32.
GRADIENT_TOLERANCE = 1e-5


class Coordinates(Protocol):
    """What L-BFGS moves in: the kernel is a linear map of it."""

    def kernel(self, coordinates: Floats) -> Floats:
        """Return the kernel at these coordinates."""

    def gradient(self, of_kernel: Floats) -> Floats:
        """Return the gradient by the coordinates, from that by the kernel."""

    def of(self, kernel: Floats) -> Floats:
        """Return the coordinates of a kernel."""


@dataclass(frozen=True)
class ScaledAxes:
    """Each axis has its own scale [r, 1], or of each class [r, k]."""

    scale: Floats

    def kernel(self, coordinates: Floats) -> Floats:
        """Return the kernel at these coordinates."""
        return coordinates * self.scale

    def gradient(self, of_kernel: Floats) -> Floats:
        """Return the gradient by the coordinates, from that by the kernel."""
        return of_kernel * self.scale

    def of(self, kernel: Floats) -> Floats:
        """Return the coordinates of a kernel."""
        return kernel / self.scale


@dataclass(frozen=True)
class _Factored:
    """The coordinates are the kernel times the transposed Cholesky factor of the curvature."""

    factor: Floats

    def kernel(self, coordinates: Floats) -> Floats:
        return self._solved(coordinates, "T")

    def gradient(self, of_kernel: Floats) -> Floats:
        return self._solved(of_kernel, "N")

    def of(self, kernel: Floats) -> Floats:
        return self.factor.T @ kernel

    def _solved(self, right: Floats, transposed: str) -> Floats:
        found: Floats = solve_triangular(
            self.factor, right, trans=transposed, lower=True, check_finite=False
        )
        return found


@dataclass(frozen=True)
class PenalizedLoss:
    """What is minimized, and in which coordinates.

    Attributes:
        of_rows: a function of a block of rows, as `RowBlocks.map` takes it. Its arguments are a
            kernel [width, k] float32, a bias [k] and `arguments`; it returns `loss_part`.
        arguments: more arguments of `of_rows`, the same in each step.
        of_kernel: maps a kernel to its penalty and the gradient of that.
        coordinates: those of the kernel in which the curvature is about one.
        bias_scale: the same for the bias, a number or [k].
        tolerance: L-BFGS stops when a step lowers the loss by less than this fraction of it.
    """

    of_rows: Callable[..., LossPart]
    arguments: tuple[Any, ...]
    of_kernel: Callable[[Floats], tuple[float, Floats]]
    coordinates: Coordinates
    bias_scale: Floats | float
    tolerance: float


class Solve(Protocol):
    """Minimizes the loss of a problem with a penalty; `step` is called after each step."""

    def __call__(
        self, problem: Problem, penalty: float, start: Weights, step: Callable[[], object] = ...
    ) -> Weights:
        """Return the solution on the axes of the problem."""


@dataclass(frozen=True)
class Solver:
    """A kind of logistic regression: the best classifier without features, and that with them.

    `prior` takes targets [n, k] and the number of features.
    """

    prior: Callable[[Floats, int], Weights]
    solve: Solve


def minimize_loss(
    problem: Problem, loss: PenalizedLoss, start: Weights, step: Callable[[], object]
) -> Weights:
    """Return the classifier with the lowest loss. `start` and the result are on the axes."""
    classes, space = problem.targets.shape[1], loss.coordinates
    axes, blocks = problem.axes, problem.blocks

    def value_and_gradient(flat: Floats) -> tuple[float, Floats]:
        matrix = flat.reshape(-1, classes)
        kernel, bias = space.kernel(matrix[:-1]), matrix[-1] * loss.bias_scale
        inner = kernel.astype(np.float32)
        used = inner if axes is None else axes.basis @ inner
        value, gradient, bias_gradient = 0.0, np.zeros(used.shape), np.zeros(classes)
        for part, part_gradient, part_bias in blocks.map(loss.of_rows, used, bias, *loss.arguments):
            value += part
            gradient += part_gradient
            bias_gradient += part_bias
        if axes is not None:
            gradient = axes.basis.T @ gradient
        penalty, penalty_gradient = loss.of_kernel(kernel)
        gradient = space.gradient(gradient + penalty_gradient)
        stacked = np.vstack([gradient, bias_gradient * loss.bias_scale])
        return value + penalty, stacked.ravel()

    first = np.vstack([space.of(start.kernel), start.bias / loss.bias_scale])
    result = minimize(
        value_and_gradient, first.ravel(), jac=True, method="L-BFGS-B",
        callback=lambda weights: step(),
        options={"maxiter": MAX_STEPS, "maxcor": 20, "ftol": loss.tolerance,
                 "gtol": GRADIENT_TOLERANCE},
    )  # fmt: skip
    matrix = result.x.reshape(-1, classes)
    return Weights(space.kernel(matrix[:-1]), matrix[-1] * loss.bias_scale)


def logits_of(rows: NDArray[np.float32], kernel: NDArray[np.float32], bias: Floats) -> Floats:
    """Return the logits [m, k] of rows [m, width]."""
    logits: Floats = (rows @ kernel).astype(np.float64) + bias
    return logits


def loss_part(rows: NDArray[np.float32], value: float, errors: Floats) -> LossPart:
    """Return the part of the loss of rows, from its value and its gradient by the logits [m, k]."""
    return value, rows.T @ errors.astype(np.float32), errors.sum(axis=0)


def make_coordinates(curvature: Floats, penalty: float) -> Coordinates:
    """Return coordinates in which curvature plus penalty is about one in all directions."""
    if curvature.ndim == 1:
        return ScaledAxes(1.0 / np.sqrt(curvature + penalty)[:, None])
    curvature[np.diag_indices(len(curvature))] += penalty
    return _Factored(cholesky(curvature, lower=True, overwrite_a=True, check_finite=False))
