"""Probabilities of all images by heads that saw neither them nor their near duplicates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from threadpoolctl import threadpool_limits

from regraft_core.formats.options.train_head import HeadOptions
from regraft_core.runtime.errors import InputError
from regraft_core.runtime.step_reports import ProgressReporter
from regraft_core.training.linear_head.chosen_fits import MemberFits
from regraft_core.training.linear_head.head_rows import HeadRows, deal_folds
from regraft_core.training.linear_head.head_selection import SELECTION_ROWS
from regraft_core.training.linear_head.held_out_fits import Trial, make_task
from regraft_core.training.linear_head.held_out_scores import fit_temperature


@dataclass(frozen=True)
class OutOfFold:
    """The predictions of all rows.

    Attributes:
        probabilities: float [n, classes].
        comparable: Whether the other folds have images of the row's class, bool [n]. Otherwise no
            head could predict the class, and its probability says nothing about the label.
    """

    probabilities: NDArray[np.float64]
    comparable: NDArray[np.bool_]


def predict_out_of_fold(
    rows: HeadRows, classes: int, members: Sequence[Trial], options: HeadOptions
) -> OutOfFold:
    """Predict each row by the head, fitted to the other folds.

    The temperature is that of the lowest log loss over the comparable rows.

    Args:
        rows: one row for each image.
        classes: number of classes.
        members: what the head is the mean of, as chosen by cross-validation.
        options: those of the head; class weights are not used, because probabilities are compared
            with the labels' frequencies.

    Raises:
        InputError: all images are near duplicates of each other.
    """
    folds = min(options.folds, len(np.unique(rows.images)))
    if folds < 2:
        raise InputError("review: expected images that differ, got only near duplicates of one")
    fold_of = deal_folds(rows.labels, rows.images, folds, options.seed)
    logits = np.empty((len(rows), classes))
    progress = ProgressReporter("review: folds", folds)
    with threadpool_limits(1, "blas"):
        for fold in range(folds):
            kept, held_out = np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)
            others = rows.subset(kept)
            task = make_task(others, classes, None, options, SELECTION_ROWS)
            fitted = MemberFits(others, task).mean(members, members[0].rows)
            logits[held_out] = fitted.logits(rows.take(held_out).astype(np.float32))
            progress.advance()
    folds_by_class = np.bincount(
        np.unique(np.stack([rows.labels, fold_of]), axis=1)[0], minlength=classes
    )
    comparable = folds_by_class[rows.labels] > 1
    some = comparable.any()
    temperature = fit_temperature(logits[comparable], rows.labels[comparable]) if some else 1.0
    return OutOfFold(softmax(logits / temperature, axis=1), comparable)
