"""The rows that a linear classifier is fitted to, and their principal axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

from regraft_core.parallel.executor import Executor
from regraft_core.training.linear_head.linear_classifier import Scaling
from regraft_core.training.linear_head.row_blocks import RowBlocks, Rows

Floats = NDArray[np.float64]
# Axes with less than this fraction of the longest one's length are rounding errors.
SHORTEST_AXIS = 1e-6


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
    With `executor`, its workers compute the sums over the rows.
    """

    parts: Sequence[Rows]
    targets: Floats
    weights: Floats
    squares: Floats
    scaling: Scaling | None = None
    axes: Axes | None = None
    executor: Executor | None = None

    @property
    def blocks(self) -> RowBlocks:
        """The rows with their targets and weights, in blocks."""
        return RowBlocks(self.parts, self.targets, self.weights, self.scaling, self.executor)


def principal_axes(rows: NDArray[np.float32]) -> Axes:
    """Return the axes of the span of scaled rows [n, width], the longest first."""
    squares, vectors = _decompose(rows)
    basis = vectors.astype(np.float32)
    if _is_wide(rows):
        basis = rows.T @ (vectors / np.sqrt(squares)).astype(np.float32)
    return Axes(np.ascontiguousarray(basis), squares / max(len(rows), 1))


def principal_coordinates(rows: NDArray[np.float32]) -> tuple[NDArray[np.float32], Floats]:
    """Return scaled rows [n, width] on their principal axes [n, r], and the mean squares [r].

    Of fewer rows than features, the eigenvectors of their products are these coordinates but for
    the lengths, so that no axes are computed.
    """
    squares, vectors = _decompose(rows)
    if _is_wide(rows):
        coordinates = (vectors * np.sqrt(squares)).astype(np.float32)
    else:
        coordinates = rows @ vectors.astype(np.float32)
    return np.ascontiguousarray(coordinates), squares / max(len(rows), 1)


def _is_wide(rows: NDArray[np.float32]) -> bool:
    return rows.shape[0] < rows.shape[1]


def _decompose(rows: NDArray[np.float32]) -> tuple[Floats, Floats]:
    """Return eigenvalues, the largest first, and eigenvectors of the smaller matrix of products."""
    products = (rows @ rows.T if _is_wide(rows) else rows.T @ rows).astype(np.float64)
    squares, vectors = eigh(products, overwrite_a=True, check_finite=False)
    kept = squares > max(float(squares[-1]), 0.0) * SHORTEST_AXIS
    return squares[kept][::-1], vectors[:, kept][:, ::-1]
