"""Predictions for held-out images by the best ridge regression, to compare features quickly."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from regraft_core.training.linear_head.head_rows import HeadRows, deal_folds, scalings
from regraft_core.training.linear_head.head_selection import PATHS
from regraft_core.training.linear_head.held_out_scores import fit_temperature, smoothed_loss
from regraft_core.training.linear_head.ridge_regression import RidgeFolds

Floats = NDArray[np.float64]


def held_out_predictions(
    candidates: Iterable[HeadRows], classes: int, scored: NDArray[np.int64], folds: int, seed: int
) -> NDArray[np.int64]:
    """Return the predictions [m] of the scored rows, by fits that saw no row of their fold.

    They are those of the features, the scaling and the penalty with the lowest log loss. All
    candidates have the same images, which are in the same folds for the same seed.

    Args:
        candidates: features of the same rows.
        classes: number of classes.
        scored: the indices of the rows that count.
        folds: number of folds.
        seed: of the folds.
    """
    best_loss, best = np.inf, np.zeros(len(scored), np.int64)
    for rows in candidates:
        fold_of = deal_folds(rows.labels, rows.images, folds, seed)
        for scores in _paths(rows, np.eye(classes)[rows.labels], fold_of):
            logits, labels = scores[scored], rows.labels[scored]
            loss = smoothed_loss(logits / fit_temperature(logits, labels), labels)
            if loss < best_loss:
                best_loss, best = loss, logits.argmax(axis=1)
    return best


def _paths(rows: HeadRows, targets: Floats, fold_of: NDArray[np.int64]) -> Iterator[Floats]:
    """Yield the held-out scores [n, classes] of each scaling and penalty."""
    with threadpool_limits(1, "blas"):
        for scaling in scalings(rows).values():
            scaled = scaling.apply(rows.take(np.arange(len(rows))))
            path = RidgeFolds(scaled, targets, np.ones(len(rows)), fold_of)
            for exponent in PATHS["ridge"]:
                yield path.scores(10.0**exponent)
