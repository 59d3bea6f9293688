"""The worst missed and false labels of a model for several labels an image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from components.evaluate.assessment import Assessment
from components.evaluate.report.image_explanation import ImageExplainer
from components.evaluate.report.report_data import LabelError

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
    explainer: ImageExplainer,
    assessment: Assessment,
    thresholds: Sequence[float],
    classes: Sequence[str],
) -> list[LabelError]:
    """Return the worst missed and false labels on the test split with their heat maps.

    Args:
        explainer: of the model and the test split.
        assessment: of this model on the test split.
        thresholds: by class.
        classes: names in the order of the columns.
    """
    probabilities, true_labels = assessment.probabilities, assessment.true_labels
    missed, false = select_label_errors(probabilities, true_labels, thresholds)
    chosen = [*missed, *false]
    indices, labels = [index for index, _ in chosen], [label for _, label in chosen]
    images = explainer.explain(indices, labels)
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
