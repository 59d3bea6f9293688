"""The probability from which an image gets a label: the one with the highest F1 of the label."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

Floats32 = NDArray[np.float32]
# Of a label without images to choose by: the more probable decision.
EVEN = 0.5


def served_probabilities(logits: NDArray[np.floating]) -> Floats32:
    """Return the probabilities of logits, in float32 as they are served."""
    probabilities: Floats32 = expit(logits.astype(np.float32))
    return probabilities


def choose_thresholds(probabilities: Floats32, labels: NDArray[np.integer]) -> list[float]:
    """Return the threshold of each label with the highest F1, each exact in float32.

    An image gets the label if its probability is at least the threshold. Each threshold is in the
    middle of two probabilities, so that small differences between machines change no decision (for
    thresholds and F1: Lipton, Elkan and Naryanaswamy, Optimal Thresholding of Classifiers to
    Maximize F1 Measure, 2014). Of equal scores, the highest threshold is taken.

    Args:
        probabilities: float32 [n, k], of images that the model was not fitted to.
        labels: which of the labels the images have, 0 or 1 [n, k].
    """
    return [
        _choose(probabilities[:, column], labels[:, column] > 0)
        for column in range(labels.shape[1])
    ]


def _choose(probabilities: Floats32, has_label: NDArray[np.bool_]) -> float:
    if not has_label.any():
        return EVEN
    order = np.argsort(-probabilities, kind="stable")
    ranked = probabilities[order]
    hits = np.cumsum(has_label[order])
    last = np.flatnonzero(np.append(np.diff(ranked) != 0, True))
    scores = 2.0 * hits[last] / (last + 1 + hits[-1])
    best = int(scores.argmax())
    lowest = ranked[last[best]]
    below = ranked[last[best] + 1] if best + 1 < len(last) else np.float32(0.0)
    middle = np.float32((np.float64(lowest) + np.float64(below)) / 2)
    return float(middle if middle > below else lowest)


def f1_scores(predicted: NDArray[np.bool_], labels: NDArray[np.integer]) -> tuple[float, float]:
    """Return macro F1, over the labels that an image has, and micro F1 of predictions [n, k]."""
    known = labels > 0
    hits, either = _sum(predicted & known), _sum(predicted) + _sum(known)
    present = _sum(known) > 0
    macro = float((2 * hits[present] / either[present]).mean()) if present.any() else 0.0
    micro = float(2 * hits.sum() / either.sum()) if either.any() else 0.0
    return macro, micro


def _sum(flags: NDArray[np.bool_]) -> NDArray[Any]:
    return flags.sum(axis=0)
