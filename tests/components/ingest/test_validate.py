"""One image at a time: what is kept, what is converted, what is refused."""

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

from components.ingest.checks.invalid_image import InvalidImageError
from components.ingest.checks.validate import examine, sniff

Photo = Callable[..., Image.Image]
FORMS = ("PNG", "JPEG", "GIF", "BMP", "WEBP")


def encode(image: Image.Image, form: str, **values: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **values)
    return buffer.getvalue()


def look(data: bytes, max_pixels: int = 10**8) -> Any:
    return examine(data, max_pixels=max_pixels)


def png_of(width: int, height: int, body: bytes = b"") -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        crc = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return start + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("form", FORMS)
def test_good_images_keep_their_bytes(make_photo: Photo, form: str) -> None:
    data = encode(make_photo(1, px=50), form)
    seen = look(data)
    assert seen.encoded is None
    assert (seen.form, seen.width, seen.height) == (form.lower(), 50, 50)
    assert seen.conversions == (("palette",) if form == "GIF" else ())
    assert len(seen.thumb) == 1024


def test_what_the_decoding_changes_is_counted(make_photo: Photo) -> None:
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
        ("animated", "palette"): encode(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        ("exif-orientation",): encode(tall, "JPEG", exif=exif),
    }
    for expected, data in cases.items():
        seen = look(data)
        assert (seen.conversions, seen.encoded) == (expected, None)
    assert (seen.width, seen.height) == (40, 60)


def test_what_cannot_be_served_is_written_anew(make_photo: Photo) -> None:
    photo = make_photo(5)
    one_bit = encode(photo.convert("1"), "BMP")
    seen = look(one_bit)
    assert seen.conversions == ("bmp-variant",)
    again = Image.open(io.BytesIO(seen.encoded))
    assert again.format == "PNG"
    assert np.array_equal(
        np.asarray(again.convert("RGB")), np.asarray(photo.convert("1").convert("RGB"))
    )
    moving = encode(photo, "WEBP", save_all=True, append_images=[make_photo(6)], lossless=True)
    seen = look(moving)
    assert seen.conversions == ("animated",)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(seen.encoded))), np.asarray(photo))


def test_sixteen_bits_are_seen_by_their_upper_byte() -> None:
    levels = (np.arange(64 * 64, dtype=np.uint16) * 16).reshape(64, 64)
    eight = Image.fromarray((levels >> 8).astype(np.uint8))
    seen, other = look(encode(Image.fromarray(levels), "PNG")), look(encode(eight, "PNG"))
    assert (seen.hash64, seen.thumb) == (other.hash64, other.thumb)


@pytest.mark.parametrize(
    ("data", "reason", "detail"),
    [
        (b"", "empty-file", "0 bytes"),
        (b"these are only words", "not-an-image", "text"),
        (b"<!DOCTYPE html><html>no</html>", "not-an-image", "HTML"),
        (b"II*\x00" + bytes(100), "unsupported-format", "TIFF"),
        (bytes(range(128, 256)), "unsupported-format", "unknown"),
        (b"\x00\x00\x00\x18ftypheic" + bytes(50), "unsupported-format", "heic"),
        (png_of(60_000, 60_000), "too-many-pixels", "60000 x 60000"),
        (png_of(10, 10, b"\x00" * 20), "damaged", "png"),
        (b"BM" + bytes(100), "damaged", "bmp"),
    ],
)
def test_bad_files_are_refused_with_a_reason(data: bytes, reason: str, detail: str) -> None:
    with pytest.raises(InvalidImageError, match=detail) as caught:
        look(data)
    assert caught.value.reason == reason


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_truncated_images_are_damaged(make_photo: Photo, form: str, share: float) -> None:
    data = encode(make_photo(7, px=200), form)
    with pytest.raises(InvalidImageError) as caught:
        look(data[: int(len(data) * share)])
    assert caught.value.reason == "damaged"


def test_a_wrong_checksum_is_damage(make_photo: Photo) -> None:
    data = bytearray(encode(make_photo(8), "PNG"))
    data[-13] ^= 1
    with pytest.raises(InvalidImageError, match="wrong checksum in chunk 'IDAT'"):
        look(bytes(data))


def test_an_enormous_image_is_refused_before_it_is_decoded(make_photo: Photo) -> None:
    for form in FORMS:
        with pytest.raises(InvalidImageError, match="100 x 100, more than 9999"):
            look(encode(make_photo(9, px=100), form), max_pixels=9_999)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(FORMS), st.data())
def test_damage_anywhere_never_escapes(form: str, data: st.DataObject) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    encoded = bytearray(encode(Image.fromarray(noise), form))
    for _ in range(data.draw(st.integers(1, 8))):
        encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    try:
        seen = look(bytes(encoded), max_pixels=10**6)
    except InvalidImageError:
        return
    assert seen.width * seen.height <= 10**6


def test_small_and_flat_images_are_compared_by_pixels_only(make_photo: Photo) -> None:
    small = make_photo(10, px=28)
    assert look(encode(small, "PNG")).thumb == b""
    assert look(encode(small, "PNG")).hash64 == look(encode(small, "BMP")).hash64
    flat = look(encode(Image.new("L", (200, 200), 3), "PNG"))
    assert (flat.thumb, flat.notes) == (b"", ("flat", "dark"))


def test_forms_are_known_by_their_bytes(make_photo: Photo) -> None:
    for form in FORMS:
        assert sniff(encode(make_photo(11), form)) == form.lower()
    assert sniff(b"GIF") == ""
