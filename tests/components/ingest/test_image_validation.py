"""One image at a time: which are stored unchanged, which are converted, which are refused."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from components.ingest.checks.image_validation import validate_image
from components.ingest.checks.invalid_image import InvalidImageError
from regraft_core.images.file_types import image_format

Photo = Callable[..., Image.Image]
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP")


def encode(image: Image.Image, kind: str, **values: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **values)
    return buffer.getvalue()


def validate(data: bytes, max_pixels: int = 10**8) -> Any:
    return validate_image(data, max_pixels=max_pixels)


def png_of(width: int, height: int, body: bytes = b"") -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        crc = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return start + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", [kind for kind in FORMATS if kind != "GIF"])
def test_valid_images_keep_their_bytes(make_photo: Photo, kind: str) -> None:
    data = encode(make_photo(1, px=50), kind)
    stats = validate(data)
    assert stats.encoded is None
    assert (stats.width, stats.height) == (50, 50)
    assert stats.conversions == ()
    assert len(stats.thumbnail) == 1024


def test_conversions_of_the_decoding_are_noted(make_photo: Photo) -> None:
    photo = make_photo(2)
    alpha = photo.copy()
    alpha.putalpha(100)
    sixteen = Image.fromarray(np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 16)
    frames = [make_photo(3), make_photo(4)]
    exif = Image.Exif()
    exif[0x0112] = 6
    tall = photo.resize((60, 40))
    cases = {
        ("cmyk",): encode(photo.convert("CMYK"), "JPEG"),
        ("16-bit",): encode(sixteen, "PNG"),
        ("palette",): encode(photo.convert("P"), "PNG"),
        ("alpha",): encode(alpha, "PNG"),
        ("animated",): encode(frames[0], "PNG", save_all=True, append_images=frames[1:]),
        ("exif-orientation",): encode(tall, "JPEG", exif=exif),
    }
    for expected, data in cases.items():
        stats = validate(data)
        assert (stats.conversions, stats.encoded) == (expected, None)
    assert (stats.width, stats.height) == (40, 60)


def test_formats_that_cannot_be_served_are_encoded_again(make_photo: Photo) -> None:
    photo = make_photo(5)
    one_bit = encode(photo.convert("1"), "BMP")
    stats = validate(one_bit)
    assert stats.conversions == ("bmp-variant",)
    again = Image.open(io.BytesIO(stats.encoded))
    assert again.format == "PNG"
    assert np.array_equal(
        np.asarray(again.convert("RGB")), np.asarray(photo.convert("1").convert("RGB"))
    )
    moving = encode(photo, "WEBP", save_all=True, append_images=[make_photo(6)], lossless=True)
    stats = validate(moving)
    assert stats.conversions == ("animated",)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(stats.encoded))), np.asarray(photo))


def test_sixteen_bits_are_measured_by_their_upper_byte() -> None:
    levels = (np.arange(64 * 64, dtype=np.uint16) * 16).reshape(64, 64)
    eight = Image.fromarray((levels >> 8).astype(np.uint8))
    stats, other = validate(encode(Image.fromarray(levels), "PNG")), validate(encode(eight, "PNG"))
    assert (stats.hash64, stats.thumbnail) == (other.hash64, other.thumbnail)


@pytest.mark.parametrize(
    ("data", "reason", "detail"),
    [
        (b"", "empty-file", "0 bytes"),
        (b"these are only words", "not-an-image", "text"),
        (b"<!DOCTYPE html><html>no</html>", "not-an-image", "HTML"),
        (b"II*\x00" + bytes(100), "damaged", "tiff"),
        (bytes(128) + b"DICM" + bytes(9), "unsupported-format", "DICOM; convert it to PNG"),
        (bytes(range(128, 256)), "unsupported-format", "unknown"),
        (b"\x00\x00\x00\x18ftypheic" + bytes(50), "unsupported-format", "heic .HEIC.; convert it"),
        (png_of(60_000, 60_000), "too-many-pixels", "60000 x 60000"),
        (png_of(10, 10, b"\x00" * 20), "damaged", "png"),
        (b"BM" + bytes(100), "damaged", "bmp"),
    ],
)
def test_invalid_files_are_refused_with_a_reason(data: bytes, reason: str, detail: str) -> None:
    with pytest.raises(InvalidImageError, match=detail) as caught:
        validate(data)
    assert caught.value.reason == reason


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("fraction", [0.05, 0.5, 0.95])
def test_truncated_images_are_damaged(make_photo: Photo, kind: str, fraction: float) -> None:
    data = encode(make_photo(7, px=200), kind)
    with pytest.raises(InvalidImageError) as caught:
        validate(data[: int(len(data) * fraction)])
    assert caught.value.reason == "damaged"


def test_an_incorrect_checksum_is_damage(make_photo: Photo) -> None:
    data = bytearray(encode(make_photo(8), "PNG"))
    data[-13] ^= 1
    with pytest.raises(InvalidImageError, match="incorrect checksum in chunk 'IDAT'"):
        validate(bytes(data))


def test_too_many_pixels_are_refused_before_decoding(make_photo: Photo) -> None:
    for kind in FORMATS:
        with pytest.raises(InvalidImageError, match="100 x 100, more than 9999"):
            validate(encode(make_photo(9, px=100), kind), max_pixels=9_999)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(FORMATS), st.data())
def test_damage_anywhere_is_the_error_of_one_image(kind: str, data: st.DataObject) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    encoded = bytearray(encode(Image.fromarray(noise), kind))
    for _ in range(data.draw(st.integers(1, 8))):
        encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    try:
        stats = validate(bytes(encoded), max_pixels=10**6)
    except InvalidImageError:
        return
    assert stats.width * stats.height <= 10**6


def test_small_and_flat_images_are_compared_by_pixels_only(make_photo: Photo) -> None:
    small = make_photo(10, px=28)
    assert validate(encode(small, "PNG")).thumbnail == b""
    assert validate(encode(small, "PNG")).hash64 == validate(encode(small, "BMP")).hash64
    flat = validate(encode(Image.new("L", (200, 200), 3), "PNG"))
    assert (flat.thumbnail, flat.notes) == (b"", ("flat", "dark"))


def test_formats_are_detected_by_their_bytes(make_photo: Photo) -> None:
    for kind in FORMATS:
        assert image_format(encode(make_photo(11), kind)) == kind.lower()
    assert image_format(b"GIF") == ""
