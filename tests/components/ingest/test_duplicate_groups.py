"""Duplicates of catalogs in which keys, pixels and splits are chosen, without any image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from components.ingest.catalog.assignments import use_source_splits
from components.ingest.catalog.catalog import Catalog
from components.ingest.catalog.columns import read_integers
from components.ingest.catalog.counts import count_images
from components.ingest.splits.duplicates import resolve_duplicates
from components.ingest.splits.near_duplicates import find_near_pairs
from regraft_core.formats.options.ingest import IngestOptions
from regraft_core.runtime.errors import DataError

Make = Callable[[Sequence[dict[str, Any]]], Catalog]


def keys(catalog: Catalog) -> list[int]:
    return read_integers(catalog, "key").tolist()


def test_near_pairs_are_sorted_by_difference_and_then_by_id(make_catalog: Make) -> None:
    gray = np.full(1024, 100, np.uint8)
    striped, darker, other = gray.copy(), gray - 3, gray.copy()
    striped[::2] += 2
    other[512:] = 0
    thumbnails = {b"f": gray, b"e": striped, b"d": darker, b"c": other}
    images = [{"id": name, "pixels": 1, "thumbnail": t.tobytes()} for name, t in thumbnails.items()]
    equal = [{"id": b"b", "pixels": -9}, {"id": b"a", "pixels": -9}, {"id": b"g", "pixels": -8}]
    catalog = make_catalog([*images, *equal])
    # Numbers start at 1, so f is 1; e differs from f and d by 1 after their brightness.
    assert find_near_pairs(catalog).tolist() == [
        (0.0, 6, 5), (0.0, 3, 1), (1.0, 3, 2), (1.0, 2, 1),
    ]  # fmt: skip


def test_hashes_of_near_duplicates_differ_in_at_most_4_bits(make_catalog: Make) -> None:
    gray = np.full(1024, 100, np.uint8).tobytes()
    hashes = [0, 0b1111, 0b11111 << 32, -1]
    catalog = make_catalog([{"pixels": value, "thumbnail": gray} for value in hashes])
    assert find_near_pairs(catalog).tolist() == [(0.0, 1, 2)]


@pytest.mark.parametrize(("images", "limit"), [(40, 16), (1699, 16), (1700, 17), (1850, 18)])
def test_a_group_has_at_most_16_images_or_a_hundredth(
    make_catalog: Make, images: int, limit: int
) -> None:
    alone: list[dict[str, Any]] = [{}] * (images - limit)
    report = resolve_duplicates(make_catalog([{"pixels": 7}] * limit + alone), IngestOptions())
    assert report.counts["near_pairs"] == limit - 1
    assert (report.counts["near_grouped"], report.counts["near_ungrouped"]) == (limit, 0)
    assert report.warnings == []

    catalog = make_catalog([{"pixels": 7}] * (limit + 1) + alone[1:])
    report = resolve_duplicates(catalog, IngestOptions())
    assert (report.counts["near_grouped"], report.counts["near_ungrouped"]) == (limit, 1)
    assert report.counts["near_groups"] == 1
    assert keys(catalog)[: limit + 1] == [1] * limit + [limit + 1]
    (warning,) = report.warnings
    assert warning.startswith("1 near-duplicate pairs were not grouped")
    assert f"would exceed {limit} images" in warning


def test_pairs_after_one_that_was_not_grouped_are_grouped(make_catalog: Make) -> None:
    report = resolve_duplicates(make_catalog([{"pixels": 7}] * 20), IngestOptions())
    assert report.counts["near_groups"] == 2
    assert (report.counts["near_grouped"], report.counts["near_ungrouped"]) == (20, 1)


def test_a_group_has_its_lowest_key(make_catalog: Make) -> None:
    pixels = [(30, 5), (20, 5), (10, 5), (50, 6), (40, 6), (60, 7)]
    catalog = make_catalog([{"key": key, "pixels": value} for key, value in pixels])
    report = resolve_duplicates(catalog, IngestOptions())
    assert keys(catalog) == [10, 10, 10, 40, 40, 60]
    assert report.counts == {
        "exact_sets": 0, "exact_dropped": 0, "near_pairs": 3, "near_label_conflicts": 0,
        "near_groups": 2, "near_grouped": 5, "near_ungrouped": 0, "leaking": 0,
        "leaking_dropped": 0, "leaking_kept": 0,
    }  # fmt: skip


def test_near_duplicates_that_are_only_reported_keep_their_keys(make_catalog: Make) -> None:
    catalog = make_catalog([{"pixels": 7}] * 3)
    report = resolve_duplicates(catalog, IngestOptions(near_duplicates="report"))
    assert report.counts["near_pairs"] == 2 and "near_groups" not in report.counts
    assert keys(catalog) == [1, 2, 3]


def test_groups_of_any_size_with_a_near_duplicate_in_common_are_joined(make_catalog: Make) -> None:
    # Groups of a table already have one key each: here of ten and seven images.
    images = [{"key": 1, "pixels": 5}] + [{"key": 1}] * 9
    images += [{"key": 2, "pixels": 5}] + [{"key": 2}] * 6
    catalog = make_catalog(images)
    report = resolve_duplicates(catalog, IngestOptions())
    assert (report.counts["near_groups"], report.counts["near_ungrouped"]) == (1, 0)
    assert (keys(catalog), report.counts["near_grouped"]) == ([1] * 17, 17)


def test_images_of_one_key_are_not_joined_again(make_catalog: Make) -> None:
    images = [{"key": 3, "pixels": 5}] * 9 + [{"key": 4, "pixels": 6}, {"key": 5, "pixels": 6}]
    catalog = make_catalog(images)
    report = resolve_duplicates(catalog, IngestOptions())
    assert report.counts["near_pairs"] == 9
    assert (report.counts["near_groups"], report.counts["near_ungrouped"]) == (1, 0)
    assert keys(catalog) == [3] * 9 + [4, 4]


def test_the_first_24_pairs_are_examples(make_catalog: Make) -> None:
    report = resolve_duplicates(make_catalog([{"pixels": 7}] * 30), IngestOptions())
    assert report.examples == [(number, number + 1) for number in range(1, 25)]


def test_near_duplicates_with_two_labels_are_reported(make_catalog: Make) -> None:
    images = [("cat", 5), ("cat", 5), ("cat", 6), ("dog", 6), ("dog", 7), ("cat", 7)]
    catalog = make_catalog([{"label": label, "pixels": value} for label, value in images])
    report = resolve_duplicates(catalog, IngestOptions())
    assert report.counts["near_label_conflicts"] == 2
    assert report.warnings == [
        "2 near-duplicate pairs have two labels, for instance 3.png (cat) and 4.png (dog)"
    ]


def test_excluded_exact_duplicates_name_the_kept_image(make_catalog: Make) -> None:
    images = [
        ("a", "train", "cat"), ("a", "test", "cat"), ("a", "test", "cat"),
        ("b", "", "cat"), ("b", "", "dog"), ("b", "", "cat"), ("c", "train", "dog"),
        ("d", "train", "cat"), ("d", "validation", "cat"),
    ]  # fmt: skip
    catalog = make_catalog(
        [{"id": name.encode(), "split": split, "label": label} for name, split, label in images]
    )
    report = resolve_duplicates(catalog, IngestOptions(near_duplicates="off"))
    assert list(catalog.quarantined()) == [
        (b"1.png", "leakage", "same bytes as 2.png in test"),
        (b"3.png", "exact-duplicate", "same bytes as 2.png"),
        (b"4.png", "label-conflict", "same bytes in cat and dog"),
        (b"5.png", "label-conflict", "same bytes in cat and dog"),
        (b"6.png", "label-conflict", "same bytes in cat and dog"),
        (b"8.png", "leakage", "same bytes as 9.png in validation"),
    ]
    assert count_images(catalog) == 3
    assert report.counts == {
        "exact_sets": 3, "exact_dropped": 6, "leaking": 2, "leaking_dropped": 0,
        "leaking_kept": 0,
    }  # fmt: skip
    assert report.warnings == [
        "2 sets of duplicates were in several splits of the source; 2 exact copies and 0 near "
        "duplicates were dropped outside the test split (--leakage report keeps near duplicates)"
    ]


LEAKING = [
    {"pixels": 5, "split": "train"},
    {"pixels": 5, "split": "test"},
    {"pixels": 5, "split": ""},
    {"pixels": 6, "split": "train"},
    {"pixels": 6, "split": "train"},
    {"pixels": 7, "split": ""},
    {"pixels": 7, "split": "validation"},
    {"pixels": 8, "split": "train"},
    {"pixels": 8, "split": "validation"},
]


def splits(catalog: Catalog) -> dict[bytes, str]:
    use_source_splits(catalog)
    catalog.index_splits()
    return {
        image.path: split
        for split in ("train", "validation", "test", "")
        for _, image in catalog.stored_images(split)
    }


def test_near_duplicates_across_splits_are_dropped_outside_test(make_catalog: Make) -> None:
    catalog = make_catalog(LEAKING)
    report = resolve_duplicates(catalog, IngestOptions())
    assert list(catalog.quarantined()) == [
        (b"1.png", "leakage", "same pixels as 2.png in test"),
        (b"8.png", "leakage", "same pixels as 9.png in validation"),
    ]
    assert (report.counts["leaking"], report.counts["leaking_dropped"]) == (2, 2)
    assert report.warnings == [
        "2 sets of duplicates were in several splits of the source; 0 exact copies and 2 near "
        "duplicates were dropped outside the test split (--leakage report keeps near duplicates)"
    ]
    # Images without a split of their own follow their group.
    assert splits(catalog) == {
        b"2.png": "test", b"3.png": "test", b"4.png": "train", b"5.png": "train",
        b"6.png": "validation", b"7.png": "validation", b"9.png": "validation",
    }  # fmt: skip


def test_near_duplicates_across_splits_are_kept_if_only_reported(make_catalog: Make) -> None:
    catalog = make_catalog(LEAKING)
    report = resolve_duplicates(catalog, IngestOptions(leakage="report"))
    assert list(catalog.quarantined()) == []
    assert (report.counts["leaking"], report.counts["leaking_dropped"]) == (2, 0)
    assert report.warnings == [
        "2 sets of duplicates were in several splits of the source; 0 exact copies were dropped "
        "outside the test split, near duplicates were kept (--leakage report)"
    ]
    split_of = splits(catalog)
    assert split_of[b"1.png"] == "train" and split_of[b"3.png"] == "test"


def test_splits_without_leakage_do_not_fail(make_catalog: Make) -> None:
    options = IngestOptions(leakage="fail")
    assert resolve_duplicates(make_catalog(LEAKING[3:7]), options).warnings == []
    with pytest.raises(DataError, match=r"2 sets .* expected none \(--leakage fail\)"):
        resolve_duplicates(make_catalog(LEAKING), options)


GRAY = np.full(1024, 100, np.uint8)


def near(count: int, **values: Any) -> list[dict[str, Any]]:
    """Return images that are near duplicates of each other, but not copies for certain."""
    thumbnails = [(GRAY + np.uint8(2) * (np.arange(1024) % 7 == n % 7)) for n in range(count)]
    return [{"pixels": 1, "thumbnail": t.tobytes(), **values} for t in thumbnails]


def test_near_duplicates_of_another_class_are_kept(make_catalog: Make) -> None:
    images = near(1, split="train", label="cat") + near(2, split="test", label="dog")[1:]
    equal = [{"pixels": 5, "split": split, "label": label}
             for split, label in (("train", "cat"), ("test", "dog"))]  # fmt: skip
    catalog = make_catalog(images + equal)
    report = resolve_duplicates(catalog, IngestOptions())
    assert list(catalog.quarantined()) == []
    assert (report.counts["leaking_dropped"], report.counts["leaking_kept"]) == (0, 2)
    assert any("2 images similar to one of another split were kept" in w for w in report.warnings)


def test_few_near_duplicates_are_dropped_and_many_kept(make_catalog: Make) -> None:
    alone = [{"split": "train", "label": "cat"}] * 8
    for leaking, dropped in ((2, 2), (3, 0)):
        images = near(leaking, split="train", label="cat") + near(1, split="test", label="cat")
        catalog = make_catalog([*alone, *images])
        report = resolve_duplicates(catalog, IngestOptions())
        assert report.counts["leaking_dropped"] == dropped
        assert report.counts["leaking_kept"] == leaking - dropped


def test_images_of_one_scene_are_kept(make_catalog: Make) -> None:
    scene = near(9, split="train", label="cat") + near(9, split="test", label="cat")
    alone = [{"split": "train", "label": "cat"}] * 200
    copies = [{"pixels": 9, "split": split, "label": "cat"} for split in ("train", "test")]
    catalog = make_catalog([*scene, *alone, *copies])
    report = resolve_duplicates(catalog, IngestOptions())
    assert [reason for _, reason, _ in catalog.quarantined()] == ["leakage"]
    assert (report.counts["leaking_dropped"], report.counts["leaking_kept"]) == (1, 9)


def test_groups_of_a_table_are_dropped_outside_test(make_catalog: Make) -> None:
    images = [
        {"key": 1, "split": "train"},
        {"key": 1, "split": "test"},
        {"key": 2, "split": "train"},
    ]
    catalog = make_catalog(images)
    report = resolve_duplicates(catalog, IngestOptions())
    assert list(catalog.quarantined()) == [(b"1.png", "leakage", "same group as 2.png in test")]
    assert (report.counts["leaking"], report.counts["leaking_dropped"]) == (1, 1)
