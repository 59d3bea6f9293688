"""The confidence below which a model abstains, so that its other predictions are precise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.evaluate.metrics.held_out import HeldOut
from components.evaluate.metrics.statistics import shortfall_probability
from regraft_core.training.intervals import wilson_interval

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]


@dataclass(frozen=True)
class Abstention:
    """The threshold of the confidence, and the precision of the accepted test images.

    `threshold` is None if no confidence is enough for the precision on the held-out images.
    `p_shortfall` is the probability of as many errors among the accepted test images, if their
    precision is that of the held-out ones; NaN without an accepted image, as are the precisions.
    """

    precision: float
    threshold: float | None
    scores: str
    held_out_images: int
    held_out_accepted: int
    needed_images: int
    test_images: int
    accepted: int
    correct: int
    test_precision: float
    test_precision_low: float
    test_precision_high: float
    p_shortfall: float


def confidence_threshold(
    confidence: Floats, correct: NDArray[np.bool_], precision: float
) -> float | None:
    """Return the lowest confidence above which predictions are precise enough; None if none is.

    One error is added to those of the held-out images, as in knockoff+ (Barber and Candes 2015) and
    in conformal selection (Jin and Candes 2023), so that the choice among all thresholds does not
    make the precision of new images lower than the wanted one on average. 0 accepts all images.

    Args:
        confidence: of held-out images, float [n].
        correct: whether their predictions are, bool [n].
        precision: the wanted fraction of accepted images that are predicted correctly.
    """
    order = np.argsort(-confidence, kind="stable")
    ordered = confidence[order]
    errors, accepted = np.cumsum(~correct[order]), np.arange(1, len(order) + 1)
    precise = errors + 1 <= (1 - precision) * (accepted + 1) + 1e-9
    # Images of the same confidence are accepted together.
    precise[:-1] &= ordered[:-1] > ordered[1:]
    if not precise.any():
        return None
    last = int(np.flatnonzero(precise)[-1])
    return 0.0 if last == len(order) - 1 else float(ordered[last])


def measure_abstention(
    held_out: HeldOut, probabilities: Floats, true_labels: Ints, precision: float
) -> Abstention:
    """Choose the threshold on held-out images, and measure the accepted test images.

    Args:
        held_out: what sets the threshold.
        probabilities: of the test images, float [n, classes], finite.
        true_labels: of the test images, int [n].
        precision: the wanted fraction of accepted images that are predicted correctly.
    """
    confidence = held_out.probabilities.max(axis=1)
    right = held_out.probabilities.argmax(axis=1) == held_out.true_labels
    threshold = confidence_threshold(confidence, right, precision)
    limit = math.inf if threshold is None else threshold
    used = confidence >= limit
    accepted = probabilities.max(axis=1) >= limit
    hits = accepted & (probabilities.argmax(axis=1) == true_labels)
    images, correct = int(accepted.sum()), int(hits.sum())
    low, high = wilson_interval(correct, images)
    return Abstention(
        precision=precision,
        threshold=threshold,
        scores=held_out.scores,
        held_out_images=len(confidence),
        held_out_accepted=int(used.sum()),
        needed_images=math.ceil(precision / (1 - precision) - 1e-9),
        test_images=len(true_labels),
        accepted=images,
        correct=correct,
        test_precision=correct / images if images else math.nan,
        test_precision_low=low,
        test_precision_high=high,
        p_shortfall=shortfall_probability(
            correct, images, int((used & right).sum()), int(used.sum())
        ),
    )
