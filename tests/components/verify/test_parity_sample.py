"""Which test images are sent to the server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from components.verify import parity_sample
from components.verify.parity_sample import select_sample
from regraft_core.formats.manifest_storage import MadeBy, digest_file
from regraft_core.formats.manifests.dataset import DatasetManifest, Shard, SplitInfo
from regraft_core.formats.records import ImageRecord, write_records
from regraft_core.runtime.errors import DataError

JPEG, PNG, GIF = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a"
# A class and the first bytes of a file.
Image = tuple[int, bytes]


def write_split(folder: Path, images: Sequence[Image]) -> Path:
    """Write a dataset whose test split has these images, with their number as path."""
    records = [
        ImageRecord(encoded, label, f"{number:064x}", str(number), number)
        for number, (label, encoded) in enumerate(images)
    ]
    shards = []
    if records:
        count = write_records(folder / "test.tfrecord", iter(records))
        digest = digest_file(folder / "test.tfrecord")
        shards = [Shard(file="test.tfrecord", count=count, sha256=digest)]
    empty = SplitInfo(count=0, by_class={}, shards=[])
    test = SplitInfo(count=len(records), by_class={}, shards=shards)
    DatasetManifest(
        digest="d", made_by=MadeBy(step="ingest", version="0", seconds=0.0), classes=["a", "b"],
        splits={"train": empty, "validation": empty, "test": test}, sources=["s"],
    ).write(folder)  # fmt: skip
    return folder


def sampled(dataset: Path, images: int = 0) -> list[int]:
    return [int(record.path) for record in select_sample(dataset, images)]


@pytest.mark.parametrize("images", [1, 4, 9, 1000])
def test_a_given_number_is_evenly_spread(tmp_path: Path, images: int) -> None:
    dataset = write_split(tmp_path, [(number % 3, PNG) for number in range(9)])
    indices = sampled(dataset, images)
    assert len(indices) == min(images, 9)
    assert indices == sorted(set(indices))
    assert indices[0] == 0
    assert indices[-1] >= 9 - 9 / images - 1e-9 - 1


def test_a_small_split_is_sent_as_a_whole(tmp_path: Path) -> None:
    dataset = write_split(tmp_path, [(number, PNG) for number in range(32)])
    assert sampled(dataset) == list(range(32))


def test_the_sample_has_each_class_each_format_and_the_largest_file(tmp_path: Path) -> None:
    """Of 320 images, each tenth is in the sample; the others are of class 0 but for a few."""
    images = [(0, JPEG)] * 320
    images[31] = (1, JPEG)
    images[32] = (1, JPEG)
    images[55] = (2, GIF)
    images[77] = (0, PNG)
    images[98] = (0, JPEG + bytes(50))
    images[99] = (0, JPEG + bytes(51))
    spread = list(range(0, 320, 10))
    assert sampled(write_split(tmp_path, images)) == sorted([*spread, 31, 55, 77, 99])


def test_a_sample_of_many_classes_is_limited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The largest file and the formats come first."""
    monkeypatch.setattr(parity_sample, "MOST", 36)
    images = [(number, JPEG) for number in range(320)]
    images[318] = (318, GIF)
    images[319] = (319, JPEG + bytes(50))
    found = sampled(write_split(tmp_path, images))
    assert len(found) == 36
    assert {*range(0, 320, 10), 1, 2, 318, 319} == set(found)


def test_an_empty_test_split_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected images in the test split, found none"):
        sampled(write_split(tmp_path, []))
