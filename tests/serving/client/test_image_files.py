"""Files that are images: the same as for ingest, and TIFF and AVIF as ingest stores them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.ingest.checks.image_validation import validate_image
from components.ingest.sources import system_files
from regraft_client import image_files
from regraft_client.errors import InvalidInputError
from regraft_client.image_files import SUFFIXES, starts_as_image, to_served
from regraft_client.predict_files import find_images
from regraft_core.images.file_types import IMAGE_SUFFIXES, image_format
from tests.components.ingest.two_readers import encode, whole_files

PHOTO = Image.fromarray(
    np.random.default_rng(1).integers(0, 256, (6, 6, 3), dtype=np.uint8)
).resize((48, 40))


def files() -> dict[str, bytes]:
    exif = Image.Exif()
    exif[0x0112] = 6
    return whole_files(PHOTO) | {
        "tiff-turned": encode(PHOTO, "TIFF", exif=exif),
        "tiff-cmyk": encode(PHOTO.convert("CMYK"), "TIFF"),
        "tiff-palette": encode(PHOTO.quantize(9), "TIFF"),
        "tiff-one-bit": encode(PHOTO.convert("1"), "TIFF"),
        "avif": encode(PHOTO, "AVIF"),
        "avif-turned": encode(PHOTO, "AVIF", exif=exif),
    }


def test_the_same_files_are_images_as_for_ingest() -> None:
    assert SUFFIXES == IMAGE_SUFFIXES
    assert image_files.SYSTEM_NAMES == system_files.SYSTEM_NAMES
    starts = [*files().values(), b"", b"BM", b"GIF", b"%PDF-1.7", b"\0" * 64, b"RIFF    WAVE"]
    for data in starts:
        assert starts_as_image(data[:64]) == bool(image_format(data[:64])), data[:16]


def test_a_folder_has_images_of_any_suffix(tmp_path: Path) -> None:
    names = ("a.jfif", "b.jpe", "c", "d.JPG", "e.png.1")
    for name in names:
        (tmp_path / name).write_bytes(encode(PHOTO, "JPEG"))
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / ".hidden.jpg").write_bytes(encode(PHOTO, "JPEG"))
    assert [path.name for path in find_images([tmp_path])] == list(names)
    for folder in (".ipynb_checkpoints", "@eaDir/a.jfif", "__MACOSX", "b/.cache/c"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "x.jpg").write_bytes(encode(PHOTO, "JPEG"))
    assert [path.name for path in find_images([tmp_path])] == list(names)
    assert len(find_images([tmp_path / ".ipynb_checkpoints"])) == 1
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInputError, match="found no image in"):
        find_images([tmp_path / "empty"])


@pytest.mark.parametrize("name", files())
def test_tiff_and_avif_are_sent_as_ingest_stores_them(name: str) -> None:
    data = files()[name]
    served = to_served(data)
    if not name.startswith(("tiff", "avif")):
        assert served is data
        return
    stored = validate_image(data, max_pixels=10**6).encoded
    assert stored is not None
    one, other = (Image.open(io.BytesIO(found)) for found in (served, stored))
    assert (one.format, one.size) == ("PNG", other.size)
    assert np.array_equal(np.asarray(one.convert("RGB")), np.asarray(other.convert("RGB")))


def test_a_damaged_tiff_is_sent_as_it_is() -> None:
    for data in (b"II*\0" + bytes(99), files()["tiff"][:200], b"\0\0\0\0ftypavif"):
        assert to_served(data) is data
