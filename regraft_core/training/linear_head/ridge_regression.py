"""Ridge regression on the indicators of the classes, and discriminant analysis, solved exactly.

Linear discriminant analysis with the penalty added to the covariance within classes, which shrinks
it, is a linear map of the scores of ridge regression (Hastie, Buja and Tibshirani, Penalized
Discriminant Analysis, 1995), so that one solution gives both. It has a closed form: many features,
scalings and penalties can be compared in the time of one logistic regression.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, eigh

from regraft_core.training.linear_head.linear_classifier import Scaling, Weights

Floats = NDArray[np.float64]
ClosedForm = Literal["ridge", "discriminant"]
# Values of rows that are scaled at a time.
BLOCK_VALUES = 1 << 24
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
        self._prior = np.average(targets, axis=0, weights=weights)

    def scores(self, penalty: float) -> dict[ClosedForm, Floats]:
        """Return each row's scores [n, classes] by the fits that saw no row of its fold."""
        ridge, discriminant = np.empty_like(self._targets), np.empty_like(self._targets)
        for fold in np.unique(self._fold_of):
            held_out = self._fold_of == fold
            kept, roots = np.flatnonzero(~held_out), self._roots[~held_out]
            total = float(np.square(roots).sum())
            matrix = self._products[np.ix_(kept, kept)] * roots[:, None] * roots
            matrix[np.diag_indices(len(kept))] += penalty * total
            known = (self._targets[kept] - self._prior) * roots[:, None]
            dual = cho_solve(cho_factor(matrix, overwrite_a=True, check_finite=False), known)
            products = self._products[np.ix_(np.flatnonzero(held_out), kept)]
            scores = products @ (dual * roots[:, None])
            ridge[held_out] = self._prior + scores
            explained = known.T @ (known - penalty * total * dual) / total
            kernel, bias = _discriminant_map(explained, self._prior)
            discriminant[held_out] = scores @ kernel + bias
        return {"ridge": ridge, "discriminant": discriminant}


def fit_ridge(
    parts: Sequence[NDArray[Any]], targets: Floats, weights: Floats, scaling: Scaling,
    penalty: float, method: ClosedForm = "ridge",
) -> Weights:  # fmt: skip
    """Minimize the weighted mean squared error + penalty * the kernel's sum of squares.

    With `discriminant`, return the logits of discriminant analysis with the penalty. Takes stored
    features in parts of [m, width], and returns the classifier of scaled features. The system that
    is solved has the rows' or the features' size, whichever is smaller.
    """
    width, total = len(scaling.factor), float(weights.sum())
    center, prior = np.zeros(width), np.average(targets, axis=0, weights=weights)
    for rows, place in _blocks(parts, scaling):
        center += weights[place] @ rows / total
    roots, residuals = np.sqrt(weights), (targets - prior) * np.sqrt(weights)[:, None]
    if len(targets) <= width:
        stacked = np.concatenate([rows for rows, _ in _blocks(parts, scaling)])
        stacked -= center.astype(np.float32)
        stacked *= roots[:, None].astype(np.float32)
        moments = stacked.T @ residuals
        kernel = stacked.T @ _solve(stacked @ stacked.T, residuals, penalty * total)
    else:
        products, moments = np.zeros((width, width)), np.zeros((width, targets.shape[1]))
        for rows, place in _blocks(parts, scaling):
            rows -= center.astype(np.float32)
            rows *= roots[place, None].astype(np.float32)
            products += rows.T @ rows
            moments += rows.T @ residuals[place]
        kernel = _solve(products, moments, penalty * total)
    if method == "ridge":
        return Weights(kernel, prior - center @ kernel)
    to_logits, bias = _discriminant_map(moments.T @ kernel / total, prior)
    kernel = kernel @ to_logits
    return Weights(kernel, bias - center @ kernel)


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


def _solve(products: NDArray[np.floating], right: Floats, ridge: float) -> Floats:
    matrix = products.astype(np.float64)
    matrix[np.diag_indices(len(matrix))] += ridge
    solution: Floats = cho_solve(cho_factor(matrix, overwrite_a=True, check_finite=False), right)
    return solution


def _blocks(
    parts: Sequence[NDArray[Any]], scaling: Scaling
) -> Iterator[tuple[NDArray[np.float32], slice]]:
    done, size = 0, max(BLOCK_VALUES // max(len(scaling.factor), 1), 1)
    for part in parts:
        for first in range(0, len(part), size):
            rows = scaling.apply(part[first : first + size])
            yield rows, slice(done + first, done + first + len(rows))
        done += len(part)
