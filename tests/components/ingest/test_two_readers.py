"""What ingest stores, the served graph decodes, and nothing crashes either; `make fuzz` goes on."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from components.ingest.checks.image_validation import validate_image
from components.ingest.checks.invalid_image import InvalidImageError
from regraft_client.image_files import to_served
from tests.components.ingest.two_readers import compare, encode, mutants

Photo = Callable[..., Image.Image]


def described(failures: list[tuple[str, bytes]]) -> list[tuple[str, str]]:
    return [(text, data.hex()) for text, data in failures]


def test_some_damaged_files_of_each_format() -> None:
    result = compare(mutants(seed=20), seconds=300, most=600)
    assert described(result.failures) == []
    for kind in ("jpeg", "png", "gif", "bmp", "webp", "tiff"):
        assert result.counts[f"{kind} refused"] > 5, kind
        assert result.counts[f"{kind} kept"] + result.counts[f"{kind} again"] > 5, kind


@pytest.mark.long(seconds=40)
def test_many_damaged_files_of_each_format() -> None:
    result = compare(mutants(seed=21), seconds=500, most=6000)
    assert described(result.failures) == []
    assert sum(result.counts.values()) > 5_000


def bmp_variants(photo: Image.Image) -> dict[str, bytes]:
    whole = encode(photo, "BMP")
    gap = whole[:10] + struct.pack("<I", 74) + whole[14:54] + bytes(20) + whole[54:]
    v5 = whole[:10] + struct.pack("<II", 138, 124) + whole[18:54] + bytes(84) + whole[54:]
    palette = bytearray(encode(photo.convert("L").point(lambda level: level % 16), "BMP"))
    short = bytes(palette[:54]) + bytes(palette[54 : 54 + 64]) + bytes(palette[1078:])
    short = short[:10] + struct.pack("<I", 118) + short[14:46] + struct.pack("<I", 16) + short[50:]
    return {
        "padding": whole + b"\0\0",
        "tail": whole + bytes(500),
        "no size": whole[:2] + bytes(4) + whole[6:34] + bytes(4) + whole[38:],
        "gap": gap,
        "v5": v5,
        "16 colors": short,
    }


@pytest.mark.parametrize("name", bmp_variants(Image.new("RGB", (47, 47))))
def test_bmp_variants_keep_their_pixels(make_photo: Photo, name: str) -> None:
    data = bmp_variants(make_photo(40, px=47))[name]
    stats = validate_image(data, max_pixels=10**6)
    stored = data if stats.encoded is None else stats.encoded
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(stored)).convert("RGB")), expected)


@pytest.mark.parametrize("cut", [1, 2])
def test_a_gif_without_its_end_is_encoded_again(make_photo: Photo, cut: int) -> None:
    data = encode(make_photo(41), "GIF")[:-cut]
    stats = validate_image(data, max_pixels=10**6)
    assert stats.encoded is not None
    assert Image.open(io.BytesIO(stats.encoded)).format == "PNG"


def test_tiff_and_avif_are_encoded_again(make_photo: Photo) -> None:
    photo = make_photo(42)
    for kind, values in (("TIFF", {"compression": "tiff_lzw"}), ("AVIF", {"quality": 100})):
        stats = validate_image(encode(photo, kind, **values), max_pixels=10**6)
        assert stats.encoded is not None
        stored = np.asarray(Image.open(io.BytesIO(stats.encoded)))
        assert stats.conversions == (kind.lower(),)
        assert np.abs(stored.astype(int) - np.asarray(photo)).max() <= (0 if kind == "TIFF" else 12)


def tiled(side: int) -> bytes:
    """Return a TIFF of 64 x 64 pixels in one larger tile."""
    tile = zlib.compress(bytes(side * side), 1)
    values = {
        256: 64,
        257: 64,
        258: 8,
        259: 8,
        262: 1,
        277: 1,
        322: side,
        323: side,
        325: len(tile),
    }
    values[324] = 8 + 2 + 12 * (len(values) + 1) + 4
    tags = b"".join(struct.pack("<HHII", tag, 4, 1, values[tag]) for tag in sorted(values))
    return b"II*\0" + struct.pack("<IH", 8, len(values)) + tags + bytes(4) + tile


def test_a_tiff_of_small_size_in_a_huge_tile_is_refused() -> None:
    """A tile of 40,000 x 40,000 pixels takes 1.5 GB of memory and 2 MB of the file."""
    assert validate_image(tiled(256), max_pixels=10**6).width == 64
    with pytest.raises(InvalidImageError, match="tiles of 4112 x 4112 pixels"):
        validate_image(tiled(4112), max_pixels=10**6)
    assert to_served(tiled(256)).startswith(b"\x89PNG")
    assert to_served(tiled(10_016)) == tiled(10_016)


def invalid_tiffs(photo: Image.Image) -> dict[str, tuple[bytes, str]]:
    preview: Any = {"tiffinfo": {254: 1}}
    raw: Any = {"tiffinfo": {50706: b"\1\4\0\0"}}
    floats = Image.fromarray(np.zeros((9, 9), np.float32))
    return {
        "preview": (encode(photo, "TIFF", **preview), "raw photograph or preview"),
        "raw": (encode(photo, "TIFF", **raw), "raw photograph or preview"),
        "float": (encode(floats, "TIFF"), "TIFF of 32-bit values"),
    }


@pytest.mark.parametrize("name", invalid_tiffs(Image.new("RGB", (8, 8))))
def test_tiffs_that_are_no_plain_image_are_unsupported(make_photo: Photo, name: str) -> None:
    data, detail = invalid_tiffs(make_photo(43))[name]
    with pytest.raises(InvalidImageError, match=detail) as caught:
        validate_image(data, max_pixels=10**6)
    assert caught.value.reason == "unsupported-format"
