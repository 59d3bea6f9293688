"""Groups of near duplicates, of which each gets one key and so stays in one split.

Pairs are joined to groups, most similar first. The size of a group is limited, so that a chain of
similar images never takes a whole class; pairs that would exceed the limit are reported.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.ingest.catalog.catalog import Catalog
from components.ingest.catalog.columns import read_integers, write_integers

MAX_GROUP_FRACTION, MIN_GROUP_LIMIT = 0.01, 16


@dataclass(frozen=True)
class NearGroups:
    """What became of the pairs: `limit` is the largest size of a group, the others are counts."""

    limit: int
    groups: int
    images: int
    ungrouped: int


def join_near_pairs(catalog: Catalog, pairs: NDArray[np.void]) -> NearGroups:
    """Give the images of a group one key: the lowest, so that a test image stays in test.

    Images that the source has put into one group have one key from the start, and count as one.

    Args:
        catalog: all images.
        pairs: `NEAR_PAIR` [pairs], most similar first.
    """
    numbers, keys = read_integers(catalog, "number"), read_integers(catalog, "key")
    limit = max(MIN_GROUP_LIMIT, int(MAX_GROUP_FRACTION * len(numbers)))
    if not len(pairs):
        return NearGroups(limit, 0, 0, 0)
    of_pairs = np.stack([keys[np.searchsorted(numbers, pairs[one])] for one in ("first", "second")])
    units, joins = np.unique(of_pairs, return_inverse=True)
    root, ungrouped = _join(len(units), joins.reshape(2, -1), limit)
    changed = np.flatnonzero(root != np.arange(len(units)))
    # The last unit stands for keys above all of them; it is not equal to any.
    unit = np.minimum(np.searchsorted(units, keys), len(units) - 1)
    of_unit = np.flatnonzero(units[unit] == keys)
    unit = unit[of_unit]
    in_group = np.isin(root[unit], root[changed])
    moved = root[unit] != unit
    write_integers(catalog, "key", units[root[unit[moved]]], numbers[of_unit[moved]])
    return NearGroups(
        limit, len(np.unique(root[changed])), int(np.count_nonzero(in_group)), ungrouped
    )


def _join(units: int, joins: NDArray[np.int64], limit: int) -> tuple[NDArray[np.int64], int]:
    """Join units in the order given; the lowest of a group is its root.

    Args:
        units: their number.
        joins: int64 [2, pairs], the units of each pair.
        limit: largest number of units in a group.

    Returns:
        The root of each unit, int64 [units], and the number of pairs that were not joined because
        of the limit.
    """
    parent, size = list(range(units)), [1] * units

    def root(unit: int) -> int:
        while parent[unit] != unit:
            parent[unit] = parent[parent[unit]]
            unit = parent[unit]
        return unit

    ungrouped = 0
    for first, second in joins.T:
        low, high = sorted((root(int(first)), root(int(second))))
        if low == high:
            continue
        if size[low] + size[high] > limit:
            ungrouped += 1
            continue
        parent[high] = low
        size[low] += size[high]
    return np.fromiter(map(root, range(units)), np.int64, units), ungrouped
