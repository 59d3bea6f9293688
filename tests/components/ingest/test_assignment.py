"""The splits of catalogs: those of the source, of keys, and of keys that the minimum moves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from components.ingest.catalog.catalog import Catalog
from components.ingest.catalog.columns import read_integers, read_words
from components.ingest.catalog.counts import count_by_split
from components.ingest.splits.assignment import assign_catalog
from regraft_core.formats.options.ingest import IngestOptions
from regraft_core.runtime.errors import DataError

Make = Callable[[Sequence[dict[str, Any]]], Catalog]
UNIT = 2**58  # a 32nd of all keys: those below 8 units are test, those below 16 validation
QUARTERS = IngestOptions(validation_fraction=0.25, test_fraction=0.25)
TEST, VALIDATION, TRAIN = 7, 15, 16


def of_class(label: str, units: Sequence[int], split: str = "") -> list[dict[str, Any]]:
    return [{"label": label, "key": unit * UNIT, "split": split} for unit in units]


def both(units: Sequence[int], split: str = "") -> list[dict[str, Any]]:
    return of_class("cat", units, split) + of_class("dog", units, split)


def assign(catalog: Catalog, options: IngestOptions = QUARTERS) -> list[str]:
    return assign_catalog(catalog, ["cat", "dog"], options)


def counts(catalog: Catalog, label: str = "cat") -> dict[str, int]:
    return {split: by_class[label] for split, by_class in count_by_split(catalog).items()}


def test_images_without_splits_have_those_of_their_keys(make_catalog: Make) -> None:
    catalog = make_catalog(both([0, TEST, VALIDATION, TRAIN, 20, 31]))
    assert assign(catalog) == []
    assert counts(catalog) == counts(catalog, "dog") == {"test": 2, "validation": 1, "train": 3}


def test_splits_of_the_source_are_kept(make_catalog: Make) -> None:
    images = both([0, 1, 2], "train") + both([30], "test") + both([0, 31], "validation")
    catalog = make_catalog(images)
    assert assign(catalog) == []
    assert counts(catalog) == {"test": 1, "validation": 2, "train": 3}


def test_only_images_without_a_split_have_those_of_their_keys(make_catalog: Make) -> None:
    images = both([0, 1, 2], "train") + both([TEST, VALIDATION, TRAIN, 30])
    catalog = make_catalog(images)
    assert assign(catalog) == []
    assert counts(catalog) == {"test": 1, "validation": 1, "train": 5}


@pytest.mark.parametrize(
    ("given", "text", "expected"),
    [
        ([], "no test and no validation split", {"test": 2, "validation": 1, "train": 2}),
        (["test"], "no validation split", {"test": 1, "validation": 2, "train": 3}),
        (["validation"], "no test split", {"test": 2, "validation": 1, "train": 3}),
    ],
)
def test_missing_splits_are_sampled_from_train(
    make_catalog: Make, given: list[str], text: str, expected: dict[str, int]
) -> None:
    images = both([6, TEST, VALIDATION, TRAIN, 31], "train")
    for split in given:
        images += both([31], split)
    catalog = make_catalog(images)
    assert assign(catalog) == [f"the source has {text}; sampled from its train split"]
    assert counts(catalog) == expected


def splits_of_units(catalog: Catalog, label: str) -> dict[int, str]:
    keys = read_integers(catalog, "key").tolist()
    labels, splits = read_words(catalog, "label"), read_words(catalog, "split")
    return {
        key // UNIT: splits.values[split]
        for key, name, split in zip(keys, labels.codes, splits.codes, strict=True)
        if labels.values[name] == label
    }


def test_the_lowest_keys_are_moved_for_the_minimum(make_catalog: Make) -> None:
    # By their keys, no cat would be in validation; the dogs need no move.
    catalog = make_catalog(of_class("cat", [0, 20, 21, 22]) + of_class("dog", [0, 8, 16, 17]))
    assert assign(catalog) == []
    assert splits_of_units(catalog, "cat") == {
        0: "test", 20: "validation", 21: "train", 22: "train",
    }  # fmt: skip
    assert splits_of_units(catalog, "dog") == {
        0: "test", 8: "validation", 16: "train", 17: "train",
    }  # fmt: skip


def test_keys_are_moved_although_each_split_has_some_images(make_catalog: Make) -> None:
    options = QUARTERS.model_copy(update={"min_per_class": 2})
    catalog = make_catalog(both([0, 8, 9, 16, 17, 18]))
    assert assign(catalog, options) == []
    assert splits_of_units(catalog, "dog") == {
        0: "test", 8: "test", 9: "validation", 16: "validation", 17: "train", 18: "train",
    }  # fmt: skip


def test_a_class_may_have_the_minimum_in_each_split(make_catalog: Make) -> None:
    options = QUARTERS.model_copy(update={"min_per_class": 2})
    catalog = make_catalog(both([0, 1, 8, 9, 16, 17]))
    assert assign(catalog, options) == []
    assert counts(catalog) == {"test": 2, "validation": 2, "train": 2}


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_too_few_images_of_a_split_are_an_error(make_catalog: Make, split: str) -> None:
    images = [
        image
        for part in ("train", "validation", "test")
        for image in of_class("cat", [1, 2], part) + of_class("dog", [1, 2][part == split :], part)
    ]
    options = QUARTERS.model_copy(update={"min_per_class": 2})
    with pytest.raises(DataError) as caught:
        assign(make_catalog(images), options)
    sampled = f"; without its {split} split, one is sampled from the train split"
    assert str(caught.value) == (
        f"expected at least 2 images of each class in the {split} split, found dog 1; add images "
        f"to the {split} split of the source, or remove these classes"
        + (sampled if split != "train" else "")
    )


def test_a_class_that_is_too_small_for_all_splits_is_an_error(make_catalog: Make) -> None:
    catalog = make_catalog([*of_class("cat", range(24)), *of_class("dog", [1, 2])])
    with pytest.raises(DataError, match="each class needs at least 3 images, 1 for each split"):
        assign(catalog, QUARTERS)


def test_at_most_20_classes_are_listed(make_catalog: Make) -> None:
    classes = [f"class{number:02}" for number in range(21)]
    catalog = make_catalog([{"label": name, "split": "train"} for name in classes])
    with pytest.raises(DataError, match=r"class00 0, .*, class19 0 and 1 more classes; add images"):
        assign_catalog(catalog, classes, QUARTERS)
