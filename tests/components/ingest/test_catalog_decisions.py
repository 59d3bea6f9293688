"""The decisions about made catalogs are those of the version that made them image by image.

The digests are of that version: they show that decisions on arrays are the same to the bit.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks.catalog_rows import synthetic_rows
from components.ingest.catalog.catalog import Catalog
from components.ingest.catalog.rows import ImageRow
from components.ingest.splits.assignment import assign_catalog
from components.ingest.splits.duplicates import resolve_duplicates
from components.ingest.splits.near_duplicates import HASH_DISTANCE, WINDOW, candidates
from regraft_core.formats.options.ingest import IngestOptions

IMAGES = 6_000
CLASSES = [f"class {number}" for number in range(10)]
SPLITS = ("train", "train", "train", "validation", "test", "")


def plain(number: int, row: ImageRow) -> ImageRow:
    return row


def with_splits(number: int, row: ImageRow) -> ImageRow:
    """Give images splits of a source, so that copies, groups and similar images are in several."""
    split = SPLITS[number // 3 % len(SPLITS)]
    return row._replace(source_split=split, split=split or row.split)


def small(number: int, row: ImageRow) -> ImageRow:
    """Make images small, some with equal pixels, and a class that has few images."""
    label = "class 9" if number % 500 == 0 else row.label.replace("class 9", "class 8")
    return row._replace(thumbnail=None, hash64=number // 7 - 400, label=label)


def small_with_splits(number: int, row: ImageRow) -> ImageRow:
    return with_splits(number, small(number, row))


def with_lists(number: int, row: ImageRow) -> ImageRow:
    """Give images lists of labels."""
    labels = {row.label, CLASSES[number % 4]} if number % 5 else ()
    return row._replace(label=json.dumps(sorted(labels)))


@pytest.mark.parametrize(
    ("change", "has_groups", "digest"),
    [
        (plain, False, "8f2662c9cda5a3bfd41c126f5738ef7755dfdb1f1e5f4135b7ed9d61488eda7e"),
        (plain, True, "d14abcba4002c79e55f16ce8a4c9a175d0b865ea4e1f9c84e8b2b5e2c61d7320"),
        (with_splits, True, "62523da6caf298e668ce6809b97b8076fc556af32ec9a4082c06223d2b61c461"),
        (small, False, "3c430f458083b9993b72332ed55e31f503ccd6d724e38ad890a3ac322cc151a5"),
        (small, True, "facad40776c9a1c183caf95a6d7cd97d2be4e8adbd24bb4567c7efb012735636"),
        (
            small_with_splits,
            False,
            "3efe8fd6787610c80bce2a4f6a96015d85aaf98b039a5fe3fb166979bfad1e7a",
        ),
        (with_lists, True, "780985daa628e24fe0e3d9fbf0bb7a2b83c21f39760d058458bad09ca29ace83"),
    ],
)
def test_decisions_are_those_of_single_images(
    tmp_path: Path, change: Callable[[int, ImageRow], ImageRow], has_groups: bool, digest: str
) -> None:
    catalog = Catalog(tmp_path / "catalog.sqlite", create=True)
    try:
        catalog.add_images(itertools.starmap(change, enumerate(synthetic_rows(IMAGES))))
        several = change is with_lists
        if several:
            catalog.use_label_lists()
        report = resolve_duplicates(catalog, IngestOptions())
        warnings = assign_catalog(
            catalog, CLASSES, IngestOptions(), several=several, has_groups=has_groups
        )
        rows = catalog.query("SELECT id, key, source_split, split FROM images ORDER BY id")
        decided = [*rows, *catalog.quarantined(), sorted(report.counts.items()), report.warnings,
                   report.examples, warnings]  # fmt: skip
    finally:
        catalog.close()
    assert hashlib.sha256(repr(decided).encode()).hexdigest() == digest


def pairs_one_by_one(hashes: np.ndarray) -> Iterator[tuple[int, int]]:
    for first, second in itertools.combinations(range(len(hashes)), 2):
        if int(hashes[first] ^ hashes[second]).bit_count() <= HASH_DISTANCE:
            yield first, second


def test_all_pairs_with_near_hashes_are_candidates() -> None:
    random = np.random.default_rng(0)
    hashes = np.tile(random.integers(0, 1 << 64, 60, np.uint64), 3)
    for changed_bits in range(6):
        hashes[60 + 10 * changed_bits :] ^= np.uint64(1) << random.integers(0, 64, dtype=np.uint64)
    found = [tuple(pair) for pair in candidates(hashes).tolist()]
    expected = list(pairs_one_by_one(hashes))
    assert found == expected
    assert len(expected) > 60


def test_equal_hashes_are_compared_with_the_next_256() -> None:
    pairs = candidates(np.full(400, 7, np.uint64))
    distances = np.bincount(pairs[:, 1] - pairs[:, 0], minlength=WINDOW + 2)
    assert distances[1 : WINDOW + 1].tolist() == [400 - step for step in range(1, WINDOW + 1)]
    assert len(pairs) == distances[1 : WINDOW + 1].sum()
