"""Ratios and means of scores that are not defined for each class."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


def ratio(part: Floats, whole: Floats) -> Floats:
    """Return part / whole in float64; NaN where the whole is 0."""
    result = np.full(np.shape(whole), np.nan)
    np.divide(part, whole, out=result, where=whole > 0)
    return result


def mean_of_known(values: Floats, known: NDArray[np.bool_]) -> Floats:
    """Return the means over known classes, float64 [rounds]; NaN where no class is known."""
    total = np.where(known, values, 0.0).sum(axis=0)
    return ratio(total, known.sum(axis=0))
