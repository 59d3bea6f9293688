"""Probabilities of all images by heads that saw neither them nor their near duplicates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from threadpoolctl import threadpool_limits

from regraft_core.formats.options import HeadOptions
from regraft_core.runtime.step_reports import ProgressReporter
from regraft_core.training.linear_head.chosen_fits import fit_members
from regraft_core.training.linear_head.head_rows import HeadRows, deal_folds
from regraft_core.training.linear_head.head_selection import SELECTION_ROWS
from regraft_core.training.linear_head.held_out_fits import Trial, make_task
from regraft_core.training.linear_head.held_out_scores import fit_temperature


def out_of_fold_probabilities(
    rows: HeadRows, classes: int, members: Sequence[Trial], options: HeadOptions
) -> NDArray[np.float64]:
    """Return probabilities [n, classes] of each row by the head, fitted to the other folds.

    The temperature is that of the lowest log loss over all rows.

    Args:
        rows: one row for each image.
        classes: number of classes.
        members: what the head is the mean of, as chosen by cross-validation.
        options: those of the head; class weights are not used, because probabilities are compared
            with the labels' frequencies.
    """
    folds = min(options.folds, len(np.unique(rows.images)))
    fold_of = deal_folds(rows.labels, rows.images, folds, options.seed)
    logits = np.empty((len(rows), classes))
    progress = ProgressReporter("review: folds", folds)
    with threadpool_limits(1, "blas"):
        for fold in range(folds):
            kept, held_out = np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)
            others = replace(
                rows, parts=[rows.take(kept)], labels=rows.labels[kept], images=rows.images[kept]
            )
            task = make_task(others, classes, None, options, SELECTION_ROWS)
            fitted = fit_members(others, task, members, members[0].rows)
            logits[held_out] = fitted.logits(rows.take(held_out).astype(np.float32))
            progress.advance()
    probabilities: NDArray[np.float64] = softmax(
        logits / fit_temperature(logits, rows.labels), axis=1
    )
    return probabilities
