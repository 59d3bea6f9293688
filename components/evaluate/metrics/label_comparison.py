"""Comparison with the champion for several labels an image: a paired bootstrap of the mAP."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.evaluate.metrics.average_precision import LabelRanking
from components.evaluate.metrics.bootstrap import (
    bootstrap,
    bootstrap_interval,
    probability_above_zero,
)
from components.evaluate.metrics.multilabel import Flags, Floats

_DIFFERENCE = "difference"


@dataclass(frozen=True)
class LabelComparison:
    """The mean average precision (mAP) of a candidate minus the champion's, on the same images.

    Both predict the same resamples, so the interval is that of paired differences. `p_worse` is the
    p-value of "not worse", which a low one refutes, and `p_better` that of "not better".
    """

    name: str
    images: int
    map: float
    champion_map: float
    difference: float
    difference_low: float
    difference_high: float
    p_worse: float
    p_better: float

    @property
    def summary(self) -> str:
        """The difference with its interval, and what it was measured on."""
        return (
            f"mAP {self.difference:+.4f} ({self.difference_low:+.4f} to "
            f"{self.difference_high:+.4f}) against {self.name} on {self.images} images"
        )

    def drops_at_most(self, margin: float) -> bool:
        """Return whether the mAP is lower by at most `margin`."""
        return -self.difference <= margin + 1e-9


def compare_labels(
    probabilities: Floats, champion: Floats, true_labels: Flags, name: str, seed: int
) -> LabelComparison:
    """Compare the probabilities of two models, each float [n, classes].

    Args:
        probabilities: of the candidate.
        champion: of the champion, for the same images and classes in the same order.
        true_labels: bool [n, classes].
        name: the champion's name, for the verdict.
        seed: of the bootstrap.
    """
    rankings = [LabelRanking(one, true_labels) for one in (probabilities, champion)]

    def difference(weights: Floats) -> dict[str, NDArray[np.floating]]:
        own, other = (ranking.means(weights) for ranking in rankings)
        return {"own": own, "other": other, _DIFFERENCE: own - other}

    images = len(true_labels)
    found = {n: float(one[0]) for n, one in difference(np.ones((images, 1), np.float32)).items()}
    gain = found[_DIFFERENCE]
    resampled = bootstrap(difference, images, seed)[_DIFFERENCE]
    low, high = bootstrap_interval(resampled, gain)
    p_worse = probability_above_zero(resampled, gain)
    return LabelComparison(
        name, images, found["own"], found["other"], gain, low, high, p_worse, 1 - p_worse
    )
