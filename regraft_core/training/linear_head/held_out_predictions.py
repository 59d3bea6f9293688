"""Predictions for held-out images by the best ridge regression, to compare features quickly."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from regraft_core.runtime.step_reports import ProgressReporter
from regraft_core.training.linear_head.head_rows import HeadRows, deal_folds, scalings
from regraft_core.training.linear_head.held_out_fits import PATHS
from regraft_core.training.linear_head.held_out_scores import fit_temperature, smoothed_loss
from regraft_core.training.linear_head.level_screening import thread_count
from regraft_core.training.linear_head.linear_classifier import Scaling
from regraft_core.training.linear_head.ridge_regression import RidgeFolds


def held_out_predictions(
    candidates: Sequence[HeadRows], classes: int, scored: NDArray[np.int64], folds: int, seed: int
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
    fold_of = deal_folds(candidates[0].labels, candidates[0].images, folds, seed)
    labels = candidates[0].labels[scored]

    def best(task: tuple[HeadRows, Scaling]) -> tuple[float, NDArray[np.int64]]:
        rows, scaling = task
        scaled = scaling.apply(rows.take(np.arange(len(rows))))
        path = RidgeFolds(scaled, np.eye(classes)[rows.labels], np.ones(len(rows)), fold_of)
        lowest, predicted = np.inf, np.zeros(len(scored), np.int64)
        for tried, exponent in enumerate(PATHS["ridge"], 1):
            logits = path.scores(10.0**exponent)["ridge"][scored]
            loss = smoothed_loss(logits / fit_temperature(logits, labels), labels)
            if loss >= lowest:
                progress.advance(len(PATHS["ridge"]) - tried + 1)
                break
            progress.advance()
            lowest, predicted = loss, logits.argmax(axis=1)
        return lowest, predicted

    tasks = [(rows, scaling) for rows in candidates for scaling in scalings(rows).values()]
    progress = ProgressReporter("head: fits in closed form", len(tasks) * len(PATHS["ridge"]))
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(thread_count()) as pool:
        return min(pool.map(best, tasks), key=lambda found: found[0])[1]
