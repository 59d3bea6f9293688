"""Multinomial logistic regression with an L2 penalty, solved to convergence by L-BFGS.

The rows are turned to their principal axes first. That changes neither the penalty nor the
solution, and rows fewer than features need no more axes than rows: the weights of the solution are
in the span of the rows. On these axes the curvature of the loss is nearly diagonal, so that each
axis gets its own scale, and L-BFGS needs tens of steps where it would need thousands. The axes of
very many features take long to find; then the Cholesky factor of the approximate curvature, which
is quick, takes their place (Nocedal and Wright, Numerical Optimization, 2006, chapter 5).

Blocks of rows are computed on all cores, and summed in their order, so that the result does not
depend on the number of cores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, eigh, solve_triangular
from scipy.optimize import minimize
from scipy.special import log_softmax

from regraft_core.runtime.machine import available_cores
from regraft_core.training.linear_head.linear_classifier import Scaling, Weights

Floats = NDArray[np.float64]
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
    squares: Floats


@dataclass(frozen=True)
class Problem:
    """What is minimized: rows, in parts of [m, width], their soft targets [n, k] and weights [n].

    With `scaling`, rows are stored features, scaled block by block, so that they need not fit in
    memory as float32. `squares` are the mean squares on `axes` [r], or without axes those of the
    rows [width], or their mean products [width, width], with which steps are fewer and longer.
    """

    parts: Sequence[NDArray[Any]]
    targets: Floats
    weights: Floats
    squares: Floats
    scaling: Scaling | None = None
    axes: Axes | None = None

    def blocks(self) -> list[Block]:
        """Return the blocks of rows, with their place."""
        found, done = [], 0
        for part in self.parts:
            size = max(BLOCK_VALUES // max(part.shape[1], 1), 1)
            for first in range(0, len(part), size):
                rows = part[first : first + size]
                found.append(Block(slice(done + first, done + first + len(rows)), rows))
            done += len(part)
        return found

    def scaled(self, rows: NDArray[Any]) -> NDArray[np.float32]:
        """Return the rows of a block as they are multiplied by the kernel."""
        return rows if self.scaling is None else self.scaling.apply(rows)


@dataclass(frozen=True)
class Block:
    """Some rows of a problem, as stored, and their place in it."""

    place: slice
    rows: NDArray[Any]


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
    classes = problem.targets.shape[1]
    total = problem.weights.sum()
    axes, blocks = problem.axes, problem.blocks()
    with ThreadPoolExecutor(min(available_cores(), len(blocks)) or 1) as threads:
        curvature = _curvature(problem, blocks, start, threads)
        # The Hessian is about the curvature times the squares, plus the penalty.
        space = make_coordinates(curvature * problem.squares, penalty)
        bias_scale = 1.0 / np.sqrt(curvature)

        def loss(flat: Floats) -> tuple[float, Floats]:
            matrix = flat.reshape(-1, classes)
            kernel, bias = space.kernel(matrix[:-1]), matrix[-1] * bias_scale
            inner = kernel.astype(np.float32)
            used = inner if axes is None else axes.basis @ inner

            def of_block(block: Block) -> tuple[float, NDArray[np.float32], Floats]:
                rows = problem.scaled(block.rows)
                logs = log_softmax((rows @ used).astype(np.float64) + bias, axis=1)
                targets = problem.targets[block.place]
                weights = problem.weights[block.place, None] / total
                errors = weights * (np.exp(logs) * targets.sum(axis=1, keepdims=True) - targets)
                value = -float((weights * targets * logs).sum())
                return value, rows.T @ errors.astype(np.float32), errors.sum(axis=0)

            value, gradient, bias_gradient = 0.0, np.zeros(used.shape), np.zeros(classes)
            for part, part_gradient, part_bias in threads.map(of_block, blocks):
                value += part
                gradient += part_gradient
                bias_gradient += part_bias
            if axes is not None:
                gradient = axes.basis.T @ gradient
            value += 0.5 * penalty * float(np.square(kernel).sum())
            gradient = space.gradient(gradient + penalty * kernel)
            return value, np.vstack([gradient, bias_gradient * bias_scale]).ravel()

        first = np.vstack([space.of(start.kernel), start.bias / bias_scale])
        result = minimize(
            loss, first.ravel(), jac=True, method="L-BFGS-B", callback=lambda weights: step(),
            options={"maxiter": MAX_STEPS, "maxcor": 20, "ftol": LOSS_TOLERANCE,
                     "gtol": GRADIENT_TOLERANCE},
        )  # fmt: skip
    matrix = result.x.reshape(-1, classes)
    bias = matrix[-1] * bias_scale
    return Weights(space.kernel(matrix[:-1]), bias - bias.mean())


def make_coordinates(curvature: Floats, penalty: float) -> Coordinates:
    """Return coordinates in which curvature plus penalty is about one in all directions."""
    if curvature.ndim == 1:
        return ScaledAxes(1.0 / np.sqrt(curvature + penalty)[:, None])
    curvature[np.diag_indices(len(curvature))] += penalty
    return _Factored(cholesky(curvature, lower=True, overwrite_a=True, check_finite=False))


def _curvature(
    problem: Problem, blocks: Sequence[Block], start: Weights, threads: ThreadPoolExecutor
) -> float:
    """Return the mean curvature of the cross-entropy in the logits, at the start."""
    kernel = start.kernel if problem.axes is None else problem.axes.basis @ start.kernel

    def certain(block: Block) -> float:
        logits = Weights(kernel, start.bias).logits(problem.scaled(block.rows))
        squares = np.exp(2.0 * log_softmax(logits, axis=1)).sum(axis=1)
        return float((problem.weights[block.place] * squares).sum())

    uncertain = 1.0 - sum(threads.map(certain, blocks)) / problem.weights.sum()
    return max(uncertain / problem.targets.shape[1], 1e-4)
