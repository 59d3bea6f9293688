"""The rows that a linear classifier is fitted to, and their principal axes."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

from regraft_core.parallel.executor import Executor
from regraft_core.training.linear_head.linear_classifier import Scaling, Weights
from regraft_core.training.linear_head.row_blocks import RowBlocks, Rows

Floats = NDArray[np.float64]
# Axes with less than this fraction of the longest one's length are rounding errors.
SHORTEST_AXIS = 1e-6


@dataclass(frozen=True)
class Axes:
    """Principal axes of the span of scaled rows [n, width], the longest first.

    `vectors` [min(n, width), r] are orthonormal: the axes, or if the rows are fewer than features
    the rows' coordinates but for the lengths of the axes. Then the axes are products with the rows,
    which are not computed for what needs only the coordinates. `squares` [r] are the mean squares
    of the rows on each axis.
    """

    rows: NDArray[np.float32]
    vectors: Floats
    squares: Floats

    @functools.cached_property
    def basis(self) -> NDArray[np.float32]:
        """The axes, orthonormal, [width, r]."""
        axes = self.vectors.astype(np.float32)
        if self._few_rows:
            axes = self.rows.T @ (self.vectors / self._lengths).astype(np.float32)
        return np.ascontiguousarray(axes)

    @property
    def coordinates(self) -> NDArray[np.float32]:
        """The rows on the axes, [n, r]."""
        if self._few_rows:
            return np.ascontiguousarray((self.vectors * self._lengths).astype(np.float32))
        return self.rows @ self.basis

    def longest(self, count: int) -> Axes:
        """Return at most so many axes."""
        return Axes(self.rows, self.vectors[:, :count], self.squares[:count])

    def to_features(self, weights: Weights) -> Weights:
        """Return the same classifier of scaled features from one on the axes."""
        if not self._few_rows:
            return Weights(self.vectors @ weights.kernel, weights.bias)
        of_rows = (self.vectors / self._lengths) @ weights.kernel
        kernel = self.rows.T @ of_rows.astype(np.float32)
        return Weights(kernel.astype(np.float64), weights.bias)

    def of_features(self, weights: Weights) -> Weights:
        """Return the classifier on the axes that is nearest to one of scaled features."""
        if not self._few_rows:
            return Weights(self.vectors.T @ weights.kernel, weights.bias)
        logits = (self.rows @ weights.kernel.astype(np.float32)).astype(np.float64)
        return Weights((self.vectors / self._lengths).T @ logits, weights.bias)

    @property
    def _few_rows(self) -> bool:
        return self.rows.shape[0] < self.rows.shape[1]

    @property
    def _lengths(self) -> Floats:
        return np.sqrt(self.squares * len(self.rows))


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
    """Return the axes of the span of scaled rows [n, width].

    They are found from the smaller matrix of products, of the rows or of the features.
    """
    few = rows.shape[0] < rows.shape[1]
    products = (rows @ rows.T if few else rows.T @ rows).astype(np.float64)
    squares, vectors = eigh(products, overwrite_a=True, check_finite=False)
    kept = squares > max(float(squares[-1]), 0.0) * SHORTEST_AXIS
    squares, vectors = squares[kept][::-1], vectors[:, kept][:, ::-1]
    return Axes(rows, np.ascontiguousarray(vectors), squares / max(len(rows), 1))
