"""Ridge regression on the indicators of the classes, and discriminant analysis, solved exactly.

Linear discriminant analysis with the penalty added to the covariance within classes, which shrinks
it, is a linear map of the scores of ridge regression (Hastie, Buja and Tibshirani, Penalized
Discriminant Analysis, 1995), so that one solution gives both. It has a closed form: many features,
scalings and penalties can be compared in the time of one logistic regression.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, eigh

from regraft_core.parallel.executor import Executor
from regraft_core.training.linear_head.linear_classifier import Scaling, Weights
from regraft_core.training.linear_head.row_blocks import RowBlocks, Rows

Floats = NDArray[np.float64]
ClosedForm = Literal["ridge", "discriminant"]
# The variance of a discriminant coordinate within classes is at least this fraction of the whole.
LEAST_WITHIN = 1e-9


class RidgeFolds:
    """Fits of all folds but one, from the inner products of rows that are computed once."""

    def __init__(
        self, rows: NDArray[np.float32], targets: Floats, weights: Floats, fold_of: NDArray[Any]
    ) -> None:
        """Take scaled rows [n, width], targets [n, classes], weights [n] and folds [n]."""
        centered = rows - np.average(rows, axis=0, weights=weights).astype(np.float32)
        self._products = (centered @ centered.T).astype(np.float64)
        self._targets, self._roots, self._fold_of = targets, np.sqrt(weights), fold_of
        self._weighted = self._products
        if not np.all(weights == 1.0):
            self._weighted = self._products * self._roots[:, None] * self._roots
        self._prior = np.average(targets, axis=0, weights=weights)

    def scores(self, penalty: float) -> dict[ClosedForm, Floats]:
        """Return each row's scores [n, classes] by the fits that saw no row of its fold."""
        ridge, discriminant = np.empty_like(self._targets), np.empty_like(self._targets)
        for fold in np.unique(self._fold_of):
            held_out = self._fold_of == fold
            kept, roots = np.flatnonzero(~held_out), self._roots[~held_out]
            total = float(np.square(roots).sum())
            matrix = self._weighted[np.ix_(kept, kept)]
            matrix[np.diag_indices(len(kept))] += penalty * total
            known = (self._targets[kept] - self._prior) * roots[:, None]
            dual = _solve(matrix, known)
            products = self._products[np.ix_(np.flatnonzero(held_out), kept)]
            scores = products @ (dual * roots[:, None])
            ridge[held_out] = self._prior + scores
            explained = known.T @ (known - penalty * total * dual) / total
            kernel, bias = _discriminant_map(explained, self._prior)
            discriminant[held_out] = scores @ kernel + bias
        return {"ridge": ridge, "discriminant": discriminant}


class RidgeSystem:
    """Ridge regressions of the same rows, whose products are computed once.

    A fit minimizes the weighted mean squared error + penalty * the kernel's sum of squares. The
    system that it solves has the rows' or the features' size, whichever is smaller. Blocks of rows
    are computed on all cores, or by the workers of an executor, and summed in their order.
    """

    def __init__(
        self, parts: Sequence[Rows], targets: Floats, weights: Floats, scaling: Scaling,
        executor: Executor | None = None,
    ) -> None:  # fmt: skip
        """Take stored features in parts of [m, width], targets [n, k] and weights [n]."""
        blocks = RowBlocks(parts, targets, weights, scaling, executor)
        self._total = float(weights.sum())
        self._prior = np.average(targets, axis=0, weights=weights)
        self._center = np.zeros(len(scaling.factor))
        for part in blocks.map(center_of, self._total):
            self._center += part
        center = self._center.astype(np.float32)
        self._rows: NDArray[np.float32] | None = None
        if len(targets) <= len(self._center):
            self._rows = np.concatenate(list(blocks.map(weighted_rows, center)))
            self._residuals = _residuals(targets, weights, self._prior)
            self._products = (self._rows @ self._rows.T).astype(np.float64)
            self._moments = self._rows.T @ self._residuals
            return
        width = len(self._center)
        self._products = np.zeros((width, width))
        self._moments = np.zeros((width, targets.shape[1]))
        for of_block, moments in blocks.map(products_of, center, self._prior):
            self._products += of_block
            self._moments += moments

    def fit(self, penalty: float, method: ClosedForm = "ridge") -> Weights:
        """Return the classifier of scaled features, or the logits of discriminant analysis."""
        if self._rows is None:
            kernel = _solve(self._with_ridge(penalty), self._moments)
        else:
            dual = _solve(self._with_ridge(penalty), self._residuals)
            kernel = self._rows.T @ dual
        if method == "ridge":
            return Weights(kernel, self._prior - self._center @ kernel)
        explained = self._moments.T @ kernel / self._total
        to_logits, bias = _discriminant_map(explained, self._prior)
        kernel = kernel @ to_logits
        return Weights(kernel, bias - self._center @ kernel)

    def _with_ridge(self, penalty: float) -> Floats:
        matrix = self._products.copy()
        matrix[np.diag_indices(len(matrix))] += penalty * self._total
        return matrix


def _discriminant_map(explained: Floats, prior: Floats) -> tuple[Floats, Floats]:
    """Return matrix [k, k] and vector [k] from centered scores of ridge regression to logits.

    Args:
        explained: mean products of centered targets and centered scores, [k, k].
        prior: frequencies of the classes, [k].
    """
    frequencies = np.maximum(prior, 1e-12)
    between, axes = eigh((explained + explained.T) / 2, np.diag(frequencies))
    between = np.clip(between, 0.0, 1.0 - LEAST_WITHIN)
    distances = np.square(axes) @ (between / (1.0 - between))
    return (axes / (1.0 - between)) @ axes.T, np.log(frequencies) - distances / 2


def _solve(matrix: Floats, right: Floats) -> Floats:
    """Return the solution for a positive definite matrix.

    NumPy factors it, because SciPy holds Python's lock meanwhile, so that other threads wait.
    """
    solution: Floats = cho_solve((np.linalg.cholesky(matrix), True), right, check_finite=False)
    return solution


def center_of(rows: NDArray[np.float32], targets: Floats, weights: Floats, total: float) -> Floats:
    """Return a block's part of the weighted mean of the rows; `total` is of all weights."""
    center: Floats = weights @ rows / total
    return center


def weighted_rows(
    rows: NDArray[np.float32], targets: Floats, weights: Floats, center: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return the centered rows of a block times the roots of their weights, in place."""
    rows -= center
    rows *= np.sqrt(weights)[:, None].astype(np.float32)
    return rows


def products_of(
    rows: NDArray[np.float32], targets: Floats, weights: Floats, center: NDArray[np.float32],
    prior: Floats,
) -> tuple[NDArray[np.float32], Floats]:  # fmt: skip
    """Return the products [width, width] of a block's rows, and those with the targets."""
    weighted = weighted_rows(rows, targets, weights, center)
    return weighted.T @ weighted, weighted.T @ _residuals(targets, weights, prior)


def _residuals(targets: Floats, weights: Floats, prior: Floats) -> Floats:
    residuals: Floats = (targets - prior) * np.sqrt(weights)[:, None]
    return residuals
