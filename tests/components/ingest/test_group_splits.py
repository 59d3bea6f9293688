"""Splits of groups: whole, near their fractions, repeatable, and with the minimum of each class."""

from __future__ import annotations

import numpy as np
import pytest

from components.ingest.splits.group_splits import assign_groups
from components.ingest.splits.split_keys import TEST, TRAIN, VALIDATION

FRACTIONS = {"validation_fraction": 0.15, "test_fraction": 0.2}


def make(seed: int, groups: int, largest: int, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Return keys and labels of groups of 2 to `largest` images, mostly of one class each."""
    random = np.random.default_rng(seed)
    sizes = random.integers(2, largest + 1, groups)
    keys = np.repeat(random.integers(0, 2**63, groups), sizes)
    labels = np.repeat(random.integers(0, classes, groups), sizes)
    mixed = random.random(len(labels)) < 0.2
    labels[mixed] = random.integers(0, classes, int(mixed.sum()))
    return keys, labels


@pytest.mark.parametrize("seed", range(5))
def test_groups_stay_whole_and_ratios_are_near_their_fractions(seed: int) -> None:
    keys, labels = make(seed, groups=60, largest=20)
    splits = assign_groups(keys, labels, minimum=1, **FRACTIONS)
    for key in np.unique(keys):
        assert len(set(splits[keys == key])) == 1
    for label in range(3):
        found = np.bincount(splits[labels == label], minlength=3) / np.sum(labels == label)
        assert found == pytest.approx([0.65, 0.15, 0.2], abs=0.04)


def test_the_order_of_the_images_does_not_matter() -> None:
    keys, labels = make(7, groups=40, largest=9)
    order = np.random.default_rng(0).permutation(len(keys))
    splits = assign_groups(keys, labels, minimum=1, **FRACTIONS)
    again = assign_groups(keys[order], labels[order], minimum=1, **FRACTIONS)
    assert np.array_equal(again, splits[order])


def test_images_without_a_group_keep_the_split_of_their_key() -> None:
    alone = np.array([1, 2**62, 2**63 - 1, 2**59])
    keys, labels = make(3, groups=30, largest=5)
    splits = assign_groups(
        np.concatenate([alone, keys]), np.concatenate([[0, 1, 2, 0], labels]), minimum=1,
        **FRACTIONS,
    )  # fmt: skip
    assert list(splits[:4]) == [TEST, TRAIN, TRAIN, TEST]


def test_a_class_of_three_groups_is_in_each_split() -> None:
    keys = np.repeat([5, 2**61, 2**62, 3, 2**60, 2**59], 10)
    labels = np.repeat([0, 0, 0, 1, 1, 1], 10)
    splits = assign_groups(keys, labels, minimum=1, **FRACTIONS)
    for label in (0, 1):
        assert set(splits[labels == label]) == {TRAIN, VALIDATION, TEST}


def test_a_split_of_fraction_zero_gets_nothing() -> None:
    keys, labels = make(2, groups=20, largest=9)
    splits = assign_groups(keys, labels, minimum=1, validation_fraction=0.0, test_fraction=0.2)
    assert set(splits) == {TRAIN, TEST}
