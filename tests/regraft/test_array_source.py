"""`regraft.from_arrays`: exact pixels, the same dataset as files, and what is refused."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import regraft
from components.ingest.ingest import ingest
from regraft_core.formats.manifests.dataset import SPLITS
from regraft_core.formats.options.ingest import IngestOptions
from regraft_core.formats.records import read_split

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (24, 20, 16, 3), dtype=np.uint8)
LABELS = np.arange(24) % 2


def pixels(file: Path) -> np.ndarray:
    return np.asarray(Image.open(file))


@pytest.mark.parametrize(
    "images",
    [IMAGES, IMAGES[..., :1], IMAGES[..., 0], IMAGES / 255, (IMAGES / 255).astype(np.float32)],
    ids=["RGB", "one channel", "gray", "float64", "float32"],
)
def test_files_have_the_pixels_of_the_arrays(images: np.ndarray, tmp_path: Path) -> None:
    table = regraft.from_arrays(images, LABELS, folder=tmp_path / "a", classes=["cat", "dog"])
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    assert [row["label"] for row in rows] == ["cat", "dog"] * 12
    for row, image in zip(rows, IMAGES, strict=True):
        found = pixels(table.parent / row["path"])
        assert np.array_equal(found, image if found.ndim == 3 else image[..., 0])


def test_arrays_are_a_source_of_ingest(tmp_path: Path) -> None:
    splits = np.array(SPLITS)[np.arange(24) % 3]
    table = regraft.from_arrays(IMAGES, LABELS, folder=tmp_path / "a", splits=splits)
    options = IngestOptions(processes=1, near_duplicates="off")
    manifest = ingest([str(table)], tmp_path / "dataset", options)
    assert manifest.classes == ["0", "1"]
    for position, split in enumerate(SPLITS):
        stored = {
            np.asarray(Image.open(io.BytesIO(record.encoded))).tobytes()
            for record in read_split(tmp_path / "dataset", split)
        }
        assert stored == {image.tobytes() for image in IMAGES[position::3]}


def test_pairs_and_batches_of_pairs_are_read_as_arrays_are(tmp_path: Path) -> None:
    pairs = list(zip(IMAGES, LABELS, strict=True))
    batches = [(IMAGES[:10], LABELS[:10]), (IMAGES[10:], LABELS[10:])]
    tables = [
        regraft.from_arrays(images, folder=tmp_path / str(number)).read_text()
        for number, images in enumerate((pairs, batches))
    ]
    whole = regraft.from_arrays(IMAGES, LABELS, folder=tmp_path / "whole", groups=LABELS)
    rows = [json.loads(line) for line in whole.read_text().splitlines()]
    assert [row.pop("group") for row in rows] == ["0", "1"] * 12
    assert [[json.loads(line) for line in table.splitlines()] for table in tables] == [rows, rows]


def test_missing_groups_are_none_and_whole_numbers_are_written_as_such(tmp_path: Path) -> None:
    groups = [3.0, None, np.nan]
    table = regraft.from_arrays(IMAGES[:3], [1.0, 0.0, 1.0], folder=tmp_path / "a", groups=groups)
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    assert [(row["label"], row["group"]) for row in rows] == [("1", "3"), ("0", ""), ("1", "")]


@pytest.mark.parametrize(
    ("images", "labels", "values", "message"),
    [
        (IMAGES, None, {}, "labels: expected a label for each image, got none"),
        (IMAGES, LABELS[:9], {}, "expected as many labels as images"),
        (IMAGES * 1.0, LABELS, {}, "image 0: expected floating-point values 0 to 1"),
        (IMAGES / np.nan, LABELS, {}, "image 0: expected floating-point values 0 to 1"),
        (IMAGES.astype(int) - 9, LABELS, {}, "image 0: expected an array of whole numbers"),
        (IMAGES[..., :2], LABELS, {}, "image 0: expected an array .* got shape"),
        (
            IMAGES,
            np.eye(2)[LABELS] / 2,
            {},
            r"label 0: expected one label, or 0 or 1 .* shape \[2\]",
        ),
        (IMAGES, np.eye(2)[LABELS], {"classes": ["cat"]}, "label 0: expected 1 values, got 2"),
        (IMAGES, LABELS, {"classes": ["cat"]}, "label 1: expected 0 to 0, got 1"),
        (IMAGES, LABELS, {"groups": [1]}, "groups: expected 24 values, got 1"),
        (IMAGES[:1], [None], {}, "label 0: expected a number or a text, got None"),
        (IMAGES[:1], [np.nan], {}, "label 0: expected a number or a text, got nan"),
        ([[[1, 2], [3]]], [0], {}, "image 0: expected an array, got"),
        (IMAGES.astype(complex), LABELS, {}, "image 0: expected an array of whole numbers"),
        ([], [], {}, "expected at least one image, got none"),
        ([1, 2], None, {}, "element 0: expected a pair of image and label"),
    ],
)
def test_what_is_not_an_image_with_a_label_is_refused(
    images: Any, labels: Any, values: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(regraft.InputError, match=message):
        regraft.from_arrays(images, labels, folder=tmp_path / "a", **values)
    assert not (tmp_path / "a").exists()
