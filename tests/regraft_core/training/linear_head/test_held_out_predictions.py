"""Quick predictions for held-out images, by which features are compared."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from regraft_core.training.linear_head.head_rows import HeadRows, scored_rows
from regraft_core.training.linear_head.held_out_predictions import held_out_predictions

CLASSES, IMAGES = 3, 150
LABELS = (np.arange(IMAGES) % CLASSES).astype(np.int32)


def rows_of(values: NDArray[np.floating], images: NDArray[np.int64] | None = None) -> HeadRows:
    values = values.astype(np.float32)
    images = np.arange(len(values)) if images is None else images
    return HeadRows([values], LABELS, images, values.mean(0), values.var(0), [values.shape[1]])


def accuracy(*candidates: HeadRows) -> float:
    scored = scored_rows(LABELS, candidates[0].images)
    predicted = held_out_predictions(candidates, CLASSES, scored, 5, 0)
    return float((predicted == LABELS[scored]).mean())


def test_the_features_that_separate_the_classes_are_used() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(IMAGES, 40))
    useful = rng.normal(size=(IMAGES, 40)) + 3 * np.eye(CLASSES, 40)[LABELS]
    assert accuracy(rows_of(useful)) > 0.9
    assert accuracy(rows_of(noise)) < 0.5
    assert accuracy(rows_of(noise), rows_of(useful)) == accuracy(rows_of(useful))


def test_near_duplicates_do_not_predict_each_other() -> None:
    """Each noisy image exists twice: in different folds, the copy would give its class away."""
    rng = np.random.default_rng(1)
    half = rng.normal(size=(IMAGES // 2, 100))
    order = np.arange(IMAGES) // CLASSES // 2 * CLASSES + np.arange(IMAGES) % CLASSES
    copies = half[order]
    assert (LABELS[np.unique(order, return_index=True)[1]] == np.unique(order) % CLASSES).all()
    assert accuracy(rows_of(copies)) > 0.6
    assert accuracy(rows_of(copies, order.astype(np.int64))) < 0.5
