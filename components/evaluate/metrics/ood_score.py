"""Images unlike anything learned: the energy score and its threshold."""

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
    """When an image counts as familiar: its score is at least `threshold`.

    The score is the negative energy at temperature 1, logsumexp(logits). `share_kept` of the
    validation images reach the threshold; `auroc` tells how well the score parts the test split
    from the unfamiliar images that were given (1 at best, 0.5 by chance), `share_refused` how
    many of these it refuses.
    """

    score: str
    threshold: float
    share_kept: float
    share_kept_on_test: float | None = None
    auroc: float | None = None
    share_refused: float | None = None
    ood_images: int = 0


def energy_scores(logits: Floats) -> Floats:
    """Return the negative free energy logsumexp(logits), float64 [n] (Liu et al. 2020).

    High for images like those of training, low for unfamiliar ones.
    """
    scores: Floats = logsumexp(np.asarray(logits, np.float64), axis=1)
    return scores


def threshold_keeping(scores: Floats, share: float) -> float:
    """Return the highest threshold that keeps at least `share` of these scores (score >= it)."""
    finite = np.sort(scores[np.isfinite(scores)])
    if not len(finite):
        return math.nan
    dropped = math.floor(len(finite) * (1 - share) + 1e-9)
    return float(finite[min(dropped, len(finite) - 1)])


def fit_ood_threshold(
    validation: Floats, test: Floats, unfamiliar: Floats | None, share: float
) -> OodThreshold | None:
    """Set the threshold on validation logits and measure it; None without finite ones.

    Args:
        validation: float [n, classes], logits that set the threshold.
        test: float [m, classes], logits of familiar images that measure it.
        unfamiliar: float [k, classes], logits of unfamiliar images, or None.
        share: of the validation images that must count as familiar.
    """
    known = energy_scores(validation) if len(validation) else np.empty(0)
    threshold = threshold_keeping(known, share)
    if math.isnan(threshold):
        return None
    tested = energy_scores(test) if len(test) else np.empty(0)
    tested = tested[np.isfinite(tested)]
    auroc = refused = None
    strange: Floats = np.empty(0)
    if unfamiliar is not None and len(unfamiliar):
        strange = energy_scores(unfamiliar)
        strange = strange[np.isfinite(strange)]
    if len(strange):
        refused = float(np.mean(strange < threshold))
        if len(tested):
            true_label = np.r_[np.ones(len(tested)), np.zeros(len(strange))]
            auroc = float(roc_auc_score(true_label, np.r_[tested, strange]))
    return OodThreshold(
        score="energy",
        threshold=threshold,
        share_kept=float(np.mean(known >= threshold)),
        share_kept_on_test=float(np.mean(tested >= threshold)) if len(tested) else None,
        auroc=auroc,
        share_refused=refused,
        ood_images=len(strange),
    )
