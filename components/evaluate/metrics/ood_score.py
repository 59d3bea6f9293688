"""The threshold of the OOD score, and how well it separates out-of-distribution (OOD) images."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from regraft_core.training.ood_detector import SCORE

Floats = NDArray[np.floating]
NONE: Floats = np.empty(0)


@dataclass(frozen=True)
class OodScores:
    """Scores of images [n], which are higher for images similar to the training data.

    Those of validation set the threshold. `ood` are OOD images, if there are any.
    """

    validation: Floats
    test: Floats = field(default_factory=lambda: NONE)
    ood: Floats = field(default_factory=lambda: NONE)


@dataclass(frozen=True)
class OodThreshold:
    """An image is in-distribution if its score is at least `threshold`.

    The fractions are those of the validation and test images that are in-distribution, and of the
    given OOD images that are rejected. `auroc` measures how well the score separates the test split
    from the OOD images (1 is perfect, 0.5 is chance).
    """

    score: str
    threshold: float
    validation_fraction: float
    test_fraction: float | None = None
    auroc: float | None = None
    rejected_fraction: float | None = None
    ood_images: int = 0


def find_threshold(scores: Floats, fraction: float) -> float:
    """Return the highest threshold that at least `fraction` of these scores reach."""
    finite = np.sort(scores[np.isfinite(scores)])
    if not len(finite):
        return math.nan
    below = math.floor(len(finite) * (1 - fraction) + 1e-9)
    return float(finite[min(below, len(finite) - 1)])


def fit_ood_threshold(scores: OodScores, fraction: float) -> OodThreshold | None:
    """Set the threshold on validation scores and measure it; None without finite scores.

    Args:
        scores: of the images that set the threshold and of those that measure it.
        fraction: of the validation images that must be in-distribution.
    """
    threshold = find_threshold(scores.validation, fraction)
    if math.isnan(threshold):
        return None
    test, ood = (one[np.isfinite(one)] for one in (scores.test, scores.ood))
    auroc = None
    if len(test) and len(ood):
        in_distribution = np.repeat([1, 0], [len(test), len(ood)])
        auroc = float(roc_auc_score(in_distribution, np.r_[test, ood]))
    return OodThreshold(
        score=SCORE,
        threshold=threshold,
        validation_fraction=float(np.mean(scores.validation >= threshold)),
        test_fraction=float(np.mean(test >= threshold)) if len(test) else None,
        auroc=auroc,
        rejected_fraction=float(np.mean(ood < threshold)) if len(ood) else None,
        ood_images=len(ood),
    )
