"""One image of each box: its pixels, its split, and boxes that are not in the image."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from components.ingest.checks.invalid_image import InvalidImageError
from components.ingest.crops import CropReader
from components.ingest.ingest import ingest
from components.ingest.sources.folders import Crop
from regraft_core.formats.manifests.dataset import SPLITS, DatasetManifest
from regraft_core.formats.options.ingest import IngestOptions
from regraft_core.formats.records import ImageRecord, read_split
from tests.components.ingest.conftest import photo, write_classes
from tests.components.ingest.forms import Items, coco, items_of, voc


def png(image: Image.Image, **values: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **values)
    return buffer.getvalue()


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def cut(data: bytes, *box: float) -> tuple[np.ndarray, bool]:
    part, clipped = CropReader(10**6).cut(data, Crop(*box))  # type: ignore[arg-type]
    return pixels(part), clipped


def test_a_box_has_the_pixels_of_its_part() -> None:
    whole = np.asarray(photo(1))
    part, clipped = cut(png(photo(1)), 3.4, 5.0, 20.0, 30.0, 64, 64)
    assert np.array_equal(part, whole[5:30, 3:20]) and not clipped


def test_a_box_over_the_edge_is_clipped() -> None:
    part, clipped = cut(png(photo(1)), -10, 50, 100, 70)
    assert np.array_equal(part, np.asarray(photo(1))[50:64]) and clipped


@pytest.mark.parametrize("box", [(70, 0, 90, 10), (0, -9, 5, 0), (5, 5, 5, 9), (9, 9, 3, 3)])
def test_a_box_without_pixels_is_invalid(box: tuple[float, ...]) -> None:
    with pytest.raises(InvalidImageError) as error:
        cut(png(photo(1)), *box)
    assert error.value.reason == "invalid-box"


def test_another_size_than_annotated_is_invalid() -> None:
    with pytest.raises(InvalidImageError) as error:
        cut(png(photo(1)), 0, 0, 5, 5, 640, 480)
    assert error.value.detail == "annotated as 640 x 480, is 64 x 64"


def test_a_box_refers_to_the_image_as_stored_or_as_shown() -> None:
    image = photo(2).crop((0, 0, 64, 32))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned clockwise: 32 x 64
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", exif=exif, quality=95)
    stored = np.asarray(Image.open(io.BytesIO(buffer.getvalue())))
    shown = np.rot90(stored, -1)
    as_stored, _ = cut(buffer.getvalue(), 10, 4, 30, 20, 64, 32)
    assert np.array_equal(as_stored, np.rot90(stored[4:20, 10:30], -1))
    as_shown, _ = cut(buffer.getvalue(), 2, 10, 20, 40, 32, 64)
    assert np.array_equal(as_shown, shown[10:40, 2:20])


def test_16_bits_and_palettes_are_cut_as_they_are_served() -> None:
    values = (np.arange(64 * 64, dtype=np.uint16) * 16).reshape(64, 64)
    part, _ = cut(png(Image.fromarray(values)), 8, 8, 40, 40)
    assert np.array_equal(part, (values >> 8).astype(np.uint8)[8:40, 8:40])
    palette = photo(3).quantize(16)
    part, _ = cut(png(palette), 8, 8, 40, 40)
    assert np.array_equal(part, np.asarray(palette.convert("RGB"))[8:40, 8:40])


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> Items:
    """The labels of images do not matter here; those of boxes do."""
    return items_of(write_classes(tmp_path_factory.mktemp("crops") / "images", count=8))


def read(source: Path, out: Path) -> tuple[DatasetManifest, dict[str, list[ImageRecord]]]:
    options = IngestOptions(
        processes=1, near_duplicates="off", crops=True, max_invalid_fraction=0.5
    )
    manifest = ingest([str(source)], out, options)
    return manifest, {split: list(read_split(out, split)) for split in SPLITS}


def test_boxes_become_images_that_share_the_split_of_theirs(items: Items, tmp_path: Path) -> None:
    boxes: list[dict[str, Any]] = []
    for number in range(len(items)):
        for category, box in ((0, [0, 0, 20, 20]), (1, [30, 30, 50, 20]), (0, [20, 0, 9, 9])):
            boxes.append({"image_id": number, "category_id": category, "bbox": box})
    crowd = {"image_id": 0, "category_id": 0, "bbox": [0, 0, 64, 64], "iscrowd": 1}
    outside = {"image_id": 0, "category_id": 0, "bbox": [90, 0, 5, 5]}
    source = coco(tmp_path / "coco", items, [*boxes, crowd, outside])
    manifest, records = read(source, tmp_path / "dataset")
    assert manifest.quarantined == {"invalid-box": 1}
    assert manifest.conversions == {"clipped-box": 16}
    found = [record for split in SPLITS for record in records[split]]
    assert len(found) == 48
    split_of = {}
    for split in SPLITS:
        for record in records[split]:
            image = record.path.partition("#")[0]
            assert split_of.setdefault(image, split) == split
    whole = {f"images/{name}": pixels(data) for name, _, data in items}
    for record in found:
        image, _, number = record.path.partition("#")
        left, top, width, height = ([0, 0, 20, 20], [30, 30, 34, 20], [20, 0, 9, 9])[int(number)]
        part = whole[image][top : top + height, left : left + width]
        assert np.array_equal(pixels(record.encoded), part)
        assert record.label == (0, 1, 0)[int(number)]


def test_boxes_of_voc_count_pixels_from_one(items: Items, tmp_path: Path) -> None:
    _, records = read(voc(tmp_path / "voc", items, "3,5,10,20"), tmp_path / "dataset")
    whole = {f"JPEGImages/{name}#0": pixels(data) for name, _, data in items}
    found = [record for split in SPLITS for record in records[split]]
    assert len(found) == len(items)
    for record in found:
        assert np.array_equal(pixels(record.encoded), whole[record.path][4:20, 2:10])


def test_images_without_boxes_have_no_crops(items: Items, tmp_path: Path) -> None:
    boxes = [
        {"image_id": number, "category_id": number % 2, "bbox": [number, 0, 20, 20]}
        for number in range(12)
    ]
    manifest, _ = read(coco(tmp_path / "coco", items, boxes), tmp_path / "dataset")
    assert sum(split.count for split in manifest.splits.values()) == 12
    assert manifest.ignored == 4 and not manifest.quarantined
    assert json.loads((tmp_path / "dataset" / "dataset.json").read_text())["options"]["crops"]
