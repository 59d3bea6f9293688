"""Whether two images are near duplicates, by the pixels of their 32 x 32 gray versions."""

from __future__ import annotations

import numpy as np

MEAN_LEVELS = 4.0
"""Largest mean absolute difference (0 .. 255) of the gray versions of near duplicates."""
MAX_LEVELS = 48.0
"""Largest difference of one of their pixels; dissimilar images differ more at some position."""
BRIGHTNESS_LEVELS = 24.0


def difference(one: np.ndarray, other: np.ndarray) -> float | None:
    """Return the mean difference of two gray versions, None if they are not of the same image.

    Args:
        one, other: float32 [1024], 0 .. 255; a difference in brightness alone is ignored.
    """
    shift = float(other.mean() - one.mean())
    if abs(shift) > BRIGHTNESS_LEVELS:
        return None
    levels = np.abs(other - one - shift)
    mean = float(levels.mean())
    return round(mean, 4) if mean <= MEAN_LEVELS and float(levels.max()) <= MAX_LEVELS else None
