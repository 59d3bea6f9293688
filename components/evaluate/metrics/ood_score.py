"""Detection of out-of-distribution (OOD) images: the energy score and its threshold."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp
from sklearn.metrics import roc_auc_score

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class OodThreshold:
    """An image is in-distribution if its score is at least `threshold`.

    The score is the negative energy at temperature 1, logsumexp(logits). The fractions are those of
    the validation and test images that are in-distribution, and of the given OOD images that are
    rejected. `auroc` measures how well the score separates the test split from the OOD images
    (1 is perfect, 0.5 is chance).
    """

    score: str
    threshold: float
    validation_fraction: float
    test_fraction: float | None = None
    auroc: float | None = None
    rejected_fraction: float | None = None
    ood_images: int = 0


def energy_scores(logits: Floats) -> Floats:
    """Return the negative free energy logsumexp(logits), float64 [n] (Liu et al. 2020).

    It is high for images similar to the training data, low for OOD images.
    """
    scores: Floats = logsumexp(np.asarray(logits, np.float64), axis=1)
    return scores


def find_threshold(scores: Floats, fraction: float) -> float:
    """Return the highest threshold that at least `fraction` of these scores reach."""
    finite = np.sort(scores[np.isfinite(scores)])
    if not len(finite):
        return math.nan
    below = math.floor(len(finite) * (1 - fraction) + 1e-9)
    return float(finite[min(below, len(finite) - 1)])


def fit_ood_threshold(
    validation: Floats, test: Floats, ood: Floats | None, fraction: float
) -> OodThreshold | None:
    """Set the threshold on validation logits and measure it; None without finite logits.

    Args:
        validation: float [n, classes], logits that set the threshold.
        test: float [m, classes], logits of in-distribution images to measure it.
        ood: float [k, classes], logits of OOD images to measure it, or None.
        fraction: of the validation images that must be in-distribution.
    """
    validation_scores = energy_scores(validation) if len(validation) else np.empty(0)
    threshold = find_threshold(validation_scores, fraction)
    if math.isnan(threshold):
        return None
    test_scores, ood_scores = _finite_scores(test), _finite_scores(ood)
    auroc = None
    if len(test_scores) and len(ood_scores):
        in_distribution = np.repeat([1, 0], [len(test_scores), len(ood_scores)])
        auroc = float(roc_auc_score(in_distribution, np.r_[test_scores, ood_scores]))
    return OodThreshold(
        score="energy",
        threshold=threshold,
        validation_fraction=float(np.mean(validation_scores >= threshold)),
        test_fraction=float(np.mean(test_scores >= threshold)) if len(test_scores) else None,
        auroc=auroc,
        rejected_fraction=float(np.mean(ood_scores < threshold)) if len(ood_scores) else None,
        ood_images=len(ood_scores),
    )


def _finite_scores(logits: Floats | None) -> Floats:
    if logits is None or not len(logits):
        return np.empty(0)
    scores = energy_scores(logits)
    return scores[np.isfinite(scores)]
