"""The most confident errors of a model, as small images in the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.evaluate.assessment import Assessment
from components.evaluate.report.image_explanation import ImageExplainer
from components.evaluate.report.report_data import GalleryItem

MAX_IMAGES = 12


def select_errors(
    probabilities: NDArray[np.floating], true_labels: NDArray[np.integer]
) -> list[int]:
    """Return the indices of the most confident errors, at most 12.

    Without any error, those of the least confident predictions. Images whose probabilities are not
    finite are excluded.
    """
    finite = np.flatnonzero(np.isfinite(probabilities).all(axis=1))
    if not len(finite):
        return []
    predicted, confidence = probabilities[finite].argmax(axis=1), probabilities[finite].max(axis=1)
    errors = predicted != true_labels[finite]
    if errors.any():
        chosen = finite[errors][np.argsort(-confidence[errors], kind="stable")]
    else:
        chosen = finite[np.argsort(confidence)]
    return [int(index) for index in chosen[:MAX_IMAGES]]


@dataclass(frozen=True)
class Gallery:
    """The images to show, and a note on how they were explained."""

    items: list[GalleryItem]
    note: str = ""


def build_gallery(
    explainer: ImageExplainer, assessment: Assessment, classes: Sequence[str]
) -> Gallery:
    """Return the most confident errors on the test split with their heat maps.

    Args:
        explainer: of the model and the test split.
        assessment: of this model on the test split.
        classes: names in the order of the columns.
    """
    probabilities, true_labels = assessment.probabilities, assessment.true_labels
    chosen = select_errors(probabilities, true_labels)
    labels = [int(probabilities[index].argmax()) for index in chosen]
    items = [
        GalleryItem(
            path=shown.path,
            true_label=classes[true_labels[index]],
            label=classes[label],
            confidence=float(probabilities[index].max()),
            true_label_probability=float(probabilities[index][true_labels[index]]),
            image=shown.image,
            overlay=shown.overlay,
        )
        for index, label, shown in zip(
            chosen, labels, explainer.explain(chosen, labels), strict=True
        )
    ]
    return Gallery(items, explainer.note if items else "")
