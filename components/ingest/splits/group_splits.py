"""Splits of groups: as near as possible to the fractions of the splits, for each class.

Few large groups drawn by their keys would miss the fractions by far. So images without a group keep
the splits of their keys, and groups follow, the largest first: each to the split in which it
reduces the squared distance to the wanted number of images most, relative to the size of each
class. The result depends on content only, but unlike with keys, a new group may move others.
"""

from __future__ import annotations

import numpy as np

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
    for unit in np.flatnonzero(sizes == 1):
        counts[splits[unit], members[unit][0]] += 1
    usable = [split for split in _SPLITS if fractions[split]]
    groups = np.flatnonzero(sizes > 1)
    for unit in groups[np.argsort(-sizes[groups], kind="stable")]:
        classes, images = members[unit]
        missing = fractions[:, None] * totals[classes] - counts[:, classes]
        gain = (images * (2 * missing - images) / totals[classes] ** 2).sum(axis=1)
        split = max(usable, key=lambda split: (gain[split], split == TRAIN))
        splits[unit] = split
        counts[split, classes] += images
    _give_minimum(splits, members, counts, usable, minimum)
    return splits[unit_of]


def _class_counts(
    unit_of: np.ndarray, labels: np.ndarray, units: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return for each unit its classes and the number of images of each."""
    width = int(labels.max()) + 1
    pairs, images = np.unique(unit_of.astype(np.int64) * width + labels, return_counts=True)
    ends = np.searchsorted(pairs, np.arange(1, units) * width)
    classes = pairs % width
    return list(zip(np.split(classes, ends), np.split(images, ends), strict=True))


def _give_minimum(
    splits: np.ndarray, members: list[tuple[np.ndarray, np.ndarray]], counts: np.ndarray,
    usable: list[int], minimum: int,
) -> None:  # fmt: skip
    """Move the smallest units that leave each class its minimum to where it has too few images."""
    order = sorted(range(len(members)), key=lambda unit: int(members[unit][1].sum()))
    for label in np.flatnonzero((counts[usable] < minimum).any(axis=0)):
        for split in usable:
            for unit in order:
                if counts[split, label] >= minimum:
                    break
                classes, images = members[unit]
                old = splits[unit]
                if old == split or label not in classes:
                    continue
                if (counts[old, classes] - images >= minimum).all():
                    splits[unit] = split
                    counts[old, classes] -= images
                    counts[split, classes] += images
