"""Confidence intervals of accuracies, without TensorFlow."""

from __future__ import annotations

import math
from statistics import NormalDist


def wilson_interval(correct: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval of a fraction (Wilson, 1927).

    It stays within 0..1 and is meaningful at 0% and 100% and for a single image, for which the
    normal approximation has no width.

    Returns:
        (low, high), or (nan, nan) if `total` is 0.
    """
    if not 0 <= correct <= total:
        raise ValueError(f"expected 0 <= correct <= total, got {correct} of {total}")
    if total == 0:
        return math.nan, math.nan
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    p, zz = correct / total, z * z / total
    center = (p + zz / 2) / (1 + zz)
    half = math.sqrt(p * (1 - p) * zz + zz * zz / 4) / (1 + zz)
    # Of no correct image, the lower bound is exactly 0; of all, the upper may round to below 1.
    return center - half, 1.0 if correct == total else center + half


def difference_interval(
    wins: int, losses: int, total: int, confidence: float = 0.95
) -> tuple[float, float]:
    """Return the interval of the difference of two accuracies on the same images.

    `wins` are images that only the first predicts correctly, `losses` those that only the second
    does. It is Wald's interval with half an image more of each kind (Agresti and Min, 2005), so
    that it has a width even if no image differs.

    Returns:
        (low, high), or (nan, nan) if `total` is 0.
    """
    if total == 0:
        return math.nan, math.nan
    first, second, images = wins + 0.5, losses + 0.5, total + 2
    difference = (first - second) / images
    variance = ((first + second) / images - difference * difference) / images
    half = NormalDist().inv_cdf(0.5 + confidence / 2) * math.sqrt(variance)
    return max(difference - half, -1.0), min(difference + half, 1.0)
