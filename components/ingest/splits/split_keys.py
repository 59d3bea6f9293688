"""Splits by keys: a pure function from the content of images to their splits.

A key is a uniform 63-bit number, a hash of an image's content (or of its group) and the seed. Keys
below one threshold are test, below another validation, the others train. So the split of an image
depends on no other image, and adding images moves no old one. Splits are stratified in expectation,
because the thresholds are the same for every class.

Only if a class would get fewer images than the minimum in a split, its lowest (or next) keys are
moved over the threshold. Such an image may return when its class has enough images.
"""

from __future__ import annotations

import hashlib

import numpy as np

from regraft_core.formats.manifests.dataset import Split

KEY_BITS = 63
TRAIN, VALIDATION, TEST = 0, 1, 2


def split_key(content: bytes, seed: int) -> int:
    """Return the key of an image (its SHA-256) or of a group (its name): 63 uniform bits."""
    digest = hashlib.blake2b(content, digest_size=8, key=b"split %d" % seed).digest()
    return int.from_bytes(digest, "big") >> (64 - KEY_BITS)


def thresholds(validation_fraction: float, test_fraction: float) -> tuple[int, int]:
    """Return the end of test's keys and the end of validation's."""
    test_end = int(test_fraction * 2**KEY_BITS)
    return test_end, test_end + int(validation_fraction * 2**KEY_BITS)


def split_of(key: int, ends: tuple[int, int]) -> Split:
    """Return the split of one key by the thresholds alone."""
    return "test" if key < ends[0] else "validation" if key < ends[1] else "train"


def split_by_key(keys: np.ndarray, ends: tuple[int, int]) -> np.ndarray:
    """Return the splits (int8 [n]) of keys (int64 [n]) by the thresholds alone."""
    splits = np.full(len(keys), TRAIN, dtype=np.int8)
    splits[keys < ends[1]] = VALIDATION
    splits[keys < ends[0]] = TEST
    return splits


def assign_splits(
    keys: np.ndarray,
    labels: np.ndarray,
    *,
    validation_fraction: float,
    test_fraction: float,
    minimum: int,
) -> np.ndarray:
    """Return the split of each image: `TRAIN`, `VALIDATION` or `TEST`.

    Args:
        keys: int64 [n], 0 .. 2**63 - 1; images with equal keys share a split.
        labels: int [n], class indices.
        validation_fraction: 0 .. 1; a split of fraction 0 gets nothing.
        test_fraction: 0 .. 1, as above.
        minimum: images that each class needs in each split. If a class has too few, its splits
            are those of its keys, for the caller to count and refuse.

    Returns:
        int8 [n].
    """
    test_end, validation_end = thresholds(validation_fraction, test_fraction)
    splits = split_by_key(keys, (test_end, validation_end))
    need = {TEST: minimum * (test_fraction > 0), VALIDATION: minimum * (validation_fraction > 0)}
    all_counts = _count(splits, labels)
    for label in np.flatnonzero(all_counts.any(axis=1)):
        counts = all_counts[label]
        if counts[TRAIN] >= minimum and all(counts[split] >= need[split] for split in need):
            continue
        units, sizes = np.unique(keys[labels == label], return_counts=True)
        first = int(np.searchsorted(units, test_end))
        second = int(np.searchsorted(units, validation_end))
        cuts = _cuts(sizes, first, second, (need[TEST], need[VALIDATION], minimum))
        if cuts is None:
            continue
        for split, members in zip((TEST, VALIDATION, TRAIN), np.split(units, cuts), strict=True):
            splits[np.isin(keys, members)] = split
        # Units with images of several classes have moved all of them.
        all_counts = _count(splits, labels)
    return splits


def _count(splits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the number of images by class and split, int [classes, 3]."""
    classes = int(labels.max(initial=-1)) + 1
    return np.bincount(labels * 3 + splits, minlength=3 * classes).reshape(-1, 3)


def _cuts(
    sizes: np.ndarray, first: int, second: int, need: tuple[int, int, int]
) -> tuple[int, int] | None:
    """Move the cuts of a class as little as necessary for the minimums; None if impossible.

    Args:
        sizes: images of each unit, in the order of keys.
        first: units in test; second: units in test and validation.
        need: minimum of images in test, validation and train.
    """
    below = np.concatenate([[0], np.cumsum(sizes)])
    total = int(below[-1])
    if total < sum(need):
        return None
    lowest_first = int(np.searchsorted(below, need[0]))
    highest_second = int(np.searchsorted(below, total - need[2], side="right")) - 1
    # The highest first cut leaves validation its minimum below the highest second cut; -1 if none.
    room = below[highest_second] - need[1]
    highest_first = int(np.searchsorted(below, room, side="right")) - 1
    if lowest_first > highest_first:
        return None
    first = min(max(first, lowest_first), highest_first)
    lowest_second = int(np.searchsorted(below, below[first] + need[1]))
    second = min(max(second, lowest_second), highest_second)
    return first, second
