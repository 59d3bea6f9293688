"""The worst missed and false labels of a model for several labels an image."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from components.evaluate.assessment import Assessment
from components.evaluate.report.error_gallery import explain_images
from components.evaluate.report.report_data import LabelError
from regraft_core.formats.manifests.model import Preprocessing

MAX_ERRORS = 6
"""Of each kind."""


def select_label_errors(
    probabilities: NDArray[np.floating],
    true_labels: NDArray[np.integer],
    thresholds: Sequence[float],
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Return the (image, class) of the worst missed labels and of the worst false ones.

    Those are the ones whose probability is farthest from the threshold of the class. Images with
    probabilities that are not finite are excluded.

    Args:
        probabilities: float [n, classes].
        true_labels: 0 or 1, int [n, classes].
        thresholds: by class.
    """
    above = probabilities - np.array(thresholds, np.float32)
    has_label, finite = true_labels == 1, np.isfinite(probabilities).all(axis=1)[:, None]
    missed = _farthest(np.where(finite & has_label & (above < 0), -above, -1.0))
    false = _farthest(np.where(finite & ~has_label & (above >= 0), above, -1.0))
    return missed, false


def _farthest(distances: NDArray[np.floating]) -> list[tuple[int, int]]:
    """Return the rows and columns of the largest distances that are not negative."""
    order = np.argsort(-distances, axis=None, kind="stable")[:MAX_ERRORS]
    pairs = (np.unravel_index(index, distances.shape) for index in order)
    return [(int(row), int(column)) for row, column in pairs if distances[row, column] >= 0]


def show_label_errors(
    model: keras.Model,
    preprocessing: Preprocessing,
    load: Callable[[tf.Tensor], tf.Tensor],
    dataset: str | os.PathLike[str],
    assessment: Assessment,
    thresholds: Sequence[float],
    classes: Sequence[str],
) -> list[LabelError]:
    """Return the worst missed and false labels on the test split with their heat maps.

    Args:
        model: the chosen candidate.
        preprocessing: of the model.
        load: from encoded images, string [n], to pixels [n, px, px, 3] in 0..255.
        dataset: the dataset's folder.
        assessment: of this model on the test split of `dataset`.
        thresholds: by class.
        classes: names in the order of the columns.
    """
    probabilities, true_labels = assessment.probabilities, assessment.true_labels
    missed, false = select_label_errors(probabilities, true_labels, thresholds)
    chosen = [*missed, *false]
    indices, labels = [index for index, _ in chosen], [label for _, label in chosen]
    images = explain_images(model, preprocessing, load, dataset, indices, labels)
    return [
        LabelError(
            kind="missed" if k < len(missed) else "false",
            path=shown.path,
            label=classes[label],
            probability=float(probabilities[index, label]),
            threshold=thresholds[label],
            true_labels=[classes[one] for one in np.flatnonzero(true_labels[index]).tolist()],
            image=shown.image,
            overlay=shown.overlay,
        )
        for k, ((index, label), shown) in enumerate(zip(chosen, images, strict=True))
    ]
