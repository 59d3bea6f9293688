"""Sets of labels that contain the true one with a chosen probability (conformal prediction).

The threshold comes from images that the model was not fitted to, as in Sadinle, Lei and Wasserman
(2019): the sets are the smallest on average among those with the coverage. If new images are like
these, a set covers the true label of at least the chosen fraction of them, whatever the model is
(Vovk, Gammerman and Shafer 2005).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.evaluate.metrics.held_out import HeldOut
from components.evaluate.metrics.statistics import shortfall_probability
from regraft_core.formats.served_thresholds import label_sets
from regraft_core.training.intervals import wilson_interval

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]


@dataclass(frozen=True)
class PredictionSets:
    """The threshold of the sets, and what they are on the test split.

    `needed_images` is how many held-out images the coverage needs; with fewer, every set has all
    labels. `sizes` counts the test images by the number of labels in their sets. `p_shortfall` is
    the probability to cover as few of the test images as it did, if the coverage is the chosen one;
    NaN without test images, as are the fractions.
    """

    coverage: float
    threshold: float
    scores: str
    held_out_images: int
    needed_images: int
    test_images: int
    covered: int
    test_coverage: float
    test_coverage_low: float
    test_coverage_high: float
    p_shortfall: float
    mean_size: float
    sizes: dict[str, int]


def set_threshold(true_probabilities: Floats, coverage: float) -> float:
    """Return the probability that a label in the set must have; 0 if there are too few images.

    Args:
        true_probabilities: of the true labels of held-out images, float [n].
        coverage: the fraction of images whose set shall contain the true label.
    """
    rank = _rank(len(true_probabilities), coverage)
    if rank > len(true_probabilities):
        return 0.0
    return float(np.sort(true_probabilities)[::-1][rank - 1])


def _rank(images: int, coverage: float) -> int:
    """Return how many of the held-out images must be covered."""
    return math.ceil((images + 1) * coverage - 1e-9)


def measure_sets(
    held_out: HeldOut, probabilities: Floats, true_labels: Ints, coverage: float
) -> PredictionSets:
    """Set the threshold on held-out images, and measure the sets of the test images.

    Args:
        held_out: what sets the threshold.
        probabilities: of the test images, float [n, classes], finite.
        true_labels: of the test images, int [n].
        coverage: the fraction of images whose set shall contain the true label.
    """
    known = held_out.probabilities[np.arange(len(held_out.true_labels)), held_out.true_labels]
    threshold, rank = set_threshold(known, coverage), _rank(len(known), coverage)
    inside = label_sets(probabilities, threshold)
    images = len(true_labels)
    covered = int(inside[np.arange(images), true_labels].sum())
    low, high = wilson_interval(covered, images)
    sizes, counts = np.unique(inside.sum(axis=1), return_counts=True)
    return PredictionSets(
        coverage=coverage,
        threshold=threshold,
        scores=held_out.scores,
        held_out_images=len(known),
        needed_images=math.ceil(coverage / (1 - coverage) - 1e-9),
        test_images=images,
        covered=covered,
        test_coverage=covered / images if images else math.nan,
        test_coverage_low=low,
        test_coverage_high=high,
        p_shortfall=shortfall_probability(covered, images, min(rank, len(known)), len(known)),
        mean_size=float(inside.sum(axis=1).mean()) if images else math.nan,
        sizes=dict(zip(map(str, sizes.tolist()), counts.tolist(), strict=True)),
    )
