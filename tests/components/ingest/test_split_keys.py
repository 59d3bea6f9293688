"""Splits are stable, stratified, and keep groups whole; tested on arbitrary data."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.ingest.splits.split_keys import (
    TEST,
    TRAIN,
    VALIDATION,
    assign_splits,
    split_by_key,
    split_key,
    split_of,
    thresholds,
)

KEYS = st.integers(0, 2**63 - 1)
IMAGES = st.lists(st.tuples(KEYS, st.integers(0, 3)), min_size=1, max_size=80)
FRACTIONS = st.tuples(st.floats(0.05, 0.4), st.floats(0.05, 0.4))


def split(
    images: list[tuple[int, int]], fractions: tuple[float, float] = (0.15, 0.2), minimum: int = 1
) -> list[int]:
    table = np.array(images, dtype=np.int64).reshape(-1, 2)
    return assign_splits(
        table[:, 0], table[:, 1], validation_fraction=fractions[0], test_fraction=fractions[1],
        minimum=minimum,
    ).tolist()  # fmt: skip


def uniform(count: int, first: int = 0) -> list[int]:
    return [split_key(hashlib.sha256(b"%d" % n).digest(), 0) for n in range(first, first + count)]


@settings(max_examples=200, deadline=None)
@given(IMAGES, IMAGES, FRACTIONS)
def test_adding_images_moves_no_old_one(
    old: list[tuple[int, int]], new: list[tuple[int, int]], fractions: tuple[float, float]
) -> None:
    # Without a minimum, the split of an image depends on no other image.
    before = split(old, fractions, minimum=0)
    assert split(old + new, fractions, minimum=0)[: len(old)] == before


@settings(max_examples=200, deadline=None)
@given(IMAGES, IMAGES, st.integers(1, 3))
def test_a_class_that_fills_its_splits_never_moves(
    old: list[tuple[int, int]], new: list[tuple[int, int]], minimum: int
) -> None:
    by_keys = split(old, minimum=0)
    if any(
        sum(1 for s, (_, label) in zip(by_keys, old, strict=True) if (s, label) == (part, own))
        < minimum
        for own in range(4)
        for part in (TRAIN, VALIDATION, TEST)
    ):
        return
    assert split(old, minimum=minimum) == by_keys
    assert split(old + new, minimum=minimum)[: len(old)] == by_keys


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(KEYS, st.integers(0, 2)), min_size=1, unique_by=lambda p: p[0]),
       st.integers(1, 3))  # fmt: skip
def test_each_class_with_enough_images_gets_its_minimum(
    images: list[tuple[int, int]], minimum: int
) -> None:
    splits = split(images, minimum=minimum)
    for label in {label for _, label in images}:
        own = [s for s, (_, other) in zip(splits, images, strict=True) if other == label]
        if len(own) >= 3 * minimum:
            assert min(own.count(part) for part in (TRAIN, VALIDATION, TEST)) >= minimum


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 3)), min_size=1, max_size=80),
       st.integers(0, 3), st.randoms())  # fmt: skip
def test_groups_stay_whole_in_any_order(
    members: list[tuple[int, int]], minimum: int, random: object
) -> None:
    images = [(split_key(b"%d" % group, 0), label) for group, label in members]
    splits = split(images, minimum=minimum)
    of_group: dict[int, set[int]] = {}
    for part, (key, _) in zip(splits, images, strict=True):
        of_group.setdefault(key, set()).add(part)
    assert all(len(parts) == 1 for parts in of_group.values())
    order = list(range(len(images)))
    random.shuffle(order)  # type: ignore[attr-defined]
    shuffled = split([images[i] for i in order], minimum=minimum)
    assert shuffled == [splits[i] for i in order]


UNIT = 2**58  # a 32nd of all keys
UNITS = st.lists(st.integers(0, 31), min_size=1, max_size=12)
QUARTERS = st.sampled_from([(0.25, 0.25), (0.25, 0.0), (0.0, 0.25), (0.0, 0.0)])


def least_moves(units: list[int], fractions: tuple[float, float], minimum: int) -> list[int]:
    """Try all cuts of one class; keep the first as near to its threshold as possible."""
    ends = int(32 * fractions[1]), int(32 * sum(fractions))
    different = sorted(set(units))
    by_keys = tuple(sum(unit < end for unit in different) for end in ends)
    need = minimum * (fractions[1] > 0), minimum * (fractions[0] > 0), minimum
    best = None
    for first in range(len(different) + 1):
        for second in range(first, len(different) + 1):
            parts = different[:first], different[first:second], different[second:]
            counts = [sum(unit in part for unit in units) for part in parts]
            moves = abs(first - by_keys[0]), abs(second - by_keys[1])
            if all(map(int.__ge__, counts, need)) and (best is None or moves < best[0]):
                best = moves, first, second
    cuts = by_keys if best is None else best[1:]
    positions = [different.index(unit) for unit in units]
    return [TEST if p < cuts[0] else VALIDATION if p < cuts[1] else TRAIN for p in positions]


@settings(max_examples=300, deadline=None)
@given(UNITS, QUARTERS, st.integers(0, 4))
def test_as_few_images_as_necessary_are_moved(
    units: list[int], fractions: tuple[float, float], minimum: int
) -> None:
    images = [(unit * UNIT, 0) for unit in units]
    assert split(images, fractions, minimum) == least_moves(units, fractions, minimum)


def test_the_thresholds_are_fractions_of_all_keys() -> None:
    assert thresholds(0.25, 0.125) == (2**60, 2**60 + 2**61)
    assert thresholds(0.5, 0.0) == (0, 2**62)


@pytest.mark.parametrize(
    ("key", "name", "number"),
    [
        (0, "test", TEST),
        (99, "test", TEST),
        (100, "validation", VALIDATION),
        (199, "validation", VALIDATION),
        (200, "train", TRAIN),
        (201, "train", TRAIN),
    ],
)
def test_a_key_at_a_threshold_is_above_it(key: int, name: str, number: int) -> None:
    assert split_of(key, (100, 200)) == name
    assert split_by_key(np.array([key]), (100, 200)).tolist() == [number]


@pytest.mark.parametrize("label", [0, 1])
def test_the_fractions_are_the_same_for_each_class(label: int) -> None:
    images = [(key, n % 2) for n, key in enumerate(uniform(20_000))]
    own = [s for s, (_, other) in zip(split(images), images, strict=True) if other == label]
    # Five standard deviations of a binomial of 10,000.
    assert abs(own.count(TEST) - 2000) < 5 * 40
    assert abs(own.count(VALIDATION) - 1500) < 5 * 36


def test_a_class_that_is_too_small_has_the_splits_of_its_keys() -> None:
    images = [(key, 0) for key in uniform(2)]
    assert split(images, minimum=1) == split(images, minimum=0)


def test_a_split_of_fraction_zero_is_empty() -> None:
    images = [(key, 0) for key in uniform(100)]
    assert set(split(images, (0.0, 0.2))) == {TRAIN, TEST}
    assert set(split(images, (0.2, 0.0))) == {TRAIN, VALIDATION}


def test_too_few_images_for_train_alone_are_not_moved() -> None:
    assert split([(5, 0), (6, 0)], (0.0, 0.0), minimum=3) == [TRAIN, TRAIN]


def test_keys_are_the_same_in_every_version() -> None:
    assert split_key(b"a", 0) == 4645772138252787828
    assert split_key(b"a", 12345) == 8694912028668813732


def test_keys_depend_on_content_and_seed() -> None:
    keys = {split_key(b"a", 0), split_key(b"a", 1), split_key(b"b", 0)}
    assert len(keys) == 3
    assert all(0 <= key < 2**63 for key in keys)
