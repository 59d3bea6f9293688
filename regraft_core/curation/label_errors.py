"""Confident learning: which labels are probably incorrect, from out-of-fold probabilities.

Northcutt, Jiang and Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels"
(arXiv 1911.00068). An image is counted as one of class j if its probability of j reaches the mean
probability of j over the images labeled j. Images that are counted as another class than their
label are suspected, and ranked by the margin of their label. If nearly all predictions are correct,
that mean is close to 1, so images that are predicted as another class are suspected, too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class LabelErrors:
    """The suspected labels.

    Attributes:
        suspected: Whether an image is counted or predicted as another class, bool [n].
        margin: Probability of the label minus the highest of the other classes, float [n], -1..1.
        better: The most probable class except the label, int [n].
    """

    suspected: NDArray[np.bool_]
    margin: NDArray[np.float64]
    better: NDArray[np.int64]


def find_label_errors(
    probabilities: NDArray[np.float64], labels: NDArray[np.integer], comparable: NDArray[np.bool_]
) -> LabelErrors:
    """Compare labels with out-of-fold probabilities.

    Args:
        probabilities: [n, classes].
        labels: int [n].
        comparable: whether the class of an image could be predicted at all, bool [n]; others are
            never suspected, and no image is counted as one of their class.
    """
    rows, classes = np.arange(len(labels)), probabilities.shape[1]
    thresholds = np.full(classes, np.inf)  # a class without images is not confident of any
    for label in np.unique(labels[comparable]):
        own = comparable & (labels == label)
        thresholds[label] = probabilities[own, label].mean()
    confident = np.where(probabilities >= thresholds, probabilities, -1.0)
    counted = confident.argmax(axis=1)
    counted_otherwise = (confident.max(axis=1) >= 0) & (counted != labels)
    others = probabilities.copy()
    others[rows, labels] = -1.0
    better = others.argmax(axis=1)
    margin = probabilities[rows, labels] - others[rows, better]
    return LabelErrors(comparable & (counted_otherwise | (margin < 0)), margin, better)
