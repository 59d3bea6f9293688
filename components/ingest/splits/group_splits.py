"""Splits of groups: as near as possible to the fractions of the splits, for each class.

Few large groups drawn by their keys would miss the fractions by far. So images without a group keep
the splits of their keys, and groups follow, the largest first: each to the split in which it
reduces the squared distance to the wanted number of images most, relative to the size of each
class. The result depends on content only, but unlike with keys, a new group may move others.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from components.ingest.splits.split_keys import TEST, TRAIN, VALIDATION, split_by_key, thresholds

_SPLITS = (TRAIN, VALIDATION, TEST)


def assign_groups(
    keys: np.ndarray,
    labels: np.ndarray,
    *,
    validation_fraction: float,
    test_fraction: float,
    minimum: int,
) -> np.ndarray:
    """Return the split of each image: `TRAIN`, `VALIDATION` or `TEST`.

    Args:
        keys: int64 [n], 0 .. 2**63 - 1; images with equal keys are a group and share a split.
        labels: int [n], class indices.
        validation_fraction: 0 .. 1; a split of fraction 0 gets nothing.
        test_fraction: 0 .. 1, as above.
        minimum: images that each class needs in each split, as far as groups allow.

    Returns:
        int8 [n].
    """
    fractions = np.array([1 - validation_fraction - test_fraction, validation_fraction,
                          test_fraction])  # fmt: skip
    units, unit_of, sizes = np.unique(keys, return_inverse=True, return_counts=True)
    members = _class_counts(unit_of, labels, len(units))
    totals = np.bincount(labels).astype(float)
    splits = split_by_key(units, thresholds(validation_fraction, test_fraction))
    counts = np.zeros((len(_SPLITS), len(totals)))
    alone = np.flatnonzero(sizes == 1)
    np.add.at(counts, (splits[alone], members.classes[members.starts[alone]]), 1)
    usable = [split for split in _SPLITS if fractions[split]]
    groups = np.flatnonzero(sizes > 1)
    for unit in groups[np.argsort(-sizes[groups], kind="stable")]:
        classes, images = members.of(unit)
        missing = fractions[:, None] * totals[classes] - counts[:, classes]
        gain = (images * (2 * missing - images) / totals[classes] ** 2).sum(axis=1)
        split = max(usable, key=lambda split: (gain[split], split == TRAIN))
        splits[unit] = split
        counts[split, classes] += images
    _give_minimum(splits, members, np.argsort(sizes, kind="stable"), counts, usable, minimum)
    return splits[unit_of]


class _ClassCounts(NamedTuple):
    """The classes of units, those of the first unit first.

    Attributes:
        starts: int64 [units + 1], where the classes of each unit start and end.
        classes: int64 [m], the classes of each unit in order.
        images: int64 [m], images of the unit in the class.
    """

    starts: NDArray[np.int64]
    classes: NDArray[np.int64]
    images: NDArray[np.int64]

    def of(self, unit: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the classes of a unit and the number of its images in each."""
        part = slice(self.starts[unit], self.starts[unit + 1])
        return self.classes[part], self.images[part]

    def units_with(self, label: int) -> NDArray[np.int64]:
        """Return the units that have images of a class, in order."""
        return np.searchsorted(self.starts, np.flatnonzero(self.classes == label), "right") - 1


def _class_counts(unit_of: NDArray[np.int64], labels: np.ndarray, units: int) -> _ClassCounts:
    width = int(labels.max()) + 1
    pairs, images = np.unique(unit_of * width + labels, return_counts=True)
    return _ClassCounts(np.searchsorted(pairs, np.arange(units + 1) * width), pairs % width, images)


def _give_minimum(
    splits: np.ndarray, members: _ClassCounts, order: NDArray[np.int64], counts: np.ndarray,
    usable: list[int], minimum: int,
) -> None:  # fmt: skip
    """Move the smallest units (first in `order`) that leave each class its minimum."""
    for label in np.flatnonzero((counts[usable] < minimum).any(axis=0)):
        with_label = order[np.isin(order, members.units_with(int(label)))]
        for split in usable:
            for unit in with_label:
                if counts[split, label] >= minimum:
                    break
                classes, images = members.of(unit)
                old = splits[unit]
                if old != split and (counts[old, classes] - images >= minimum).all():
                    splits[unit] = split
                    counts[old, classes] -= images
                    counts[split, classes] += images
