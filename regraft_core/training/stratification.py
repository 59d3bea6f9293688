"""Divides images with several labels into subsets in which each label is equally frequent."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def stratify(
    counts: NDArray[np.integer], sizes: NDArray[np.integer], fractions: Sequence[float],
    minimum: int = 0,
) -> NDArray[np.int64]:  # fmt: skip
    """Return the subset of each unit, int64 [n], by iterative stratification.

    The rarest label that is left is dealt first, each unit to the subset that lacks most images of
    the label, then most images (Sechidis, Tsoumakas and Vlahavas, On the Stratification of
    Multi-Label Data, 2011). A unit is an image, or a group of images that stay together. Equal
    subsets are taken in order, and units in the order given, so that the result is deterministic.

    Args:
        counts: images of each unit with each label, int [n, classes].
        sizes: images of each unit, int [n].
        fractions: of the subsets; their sum is 1.
        minimum: images of each label that a subset lacks at first, even if its fraction is fewer.
    """
    shares = np.asarray(fractions)
    lacking = np.maximum(shares[:, None] * counts.sum(axis=0), minimum)
    missing = shares * sizes.sum()
    subset = np.full(len(sizes), -1)

    def deal(units: NDArray[np.int64], label: int | None) -> None:
        for unit in units:
            wanted = missing if label is None else lacking[:, label]
            most = np.flatnonzero(wanted == wanted.max())
            chosen = most[missing[most].argmax()]
            subset[unit] = chosen
            lacking[chosen] -= counts[unit]
            missing[chosen] -= sizes[unit]

    left = np.ones(len(sizes), np.bool_)
    remaining = counts.sum(axis=0)
    while remaining.any():
        label = int(np.where(remaining > 0, remaining, np.iinfo(np.int64).max).argmin())
        units = np.flatnonzero(left & (counts[:, label] > 0))
        deal(units, label)
        left[units] = False
        remaining -= counts[units].sum(axis=0)
    deal(np.flatnonzero(left), None)
    return subset
