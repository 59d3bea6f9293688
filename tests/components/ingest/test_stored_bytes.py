"""Stored bytes are decoded by the model to the same pixels; what it cannot decode is invalid."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from components.ingest.checks.image_stats import measure_small_images, over_white
from components.ingest.checks.image_validation import validate_image
from components.ingest.checks.invalid_image import InvalidImageError
from components.ingest.checks.png import unpack_small
from regraft_core.images.preprocess import decode_image

Photo = Callable[..., Image.Image]


def encode(image: Image.Image, kind: str, **values: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **values)
    return buffer.getvalue()


def png_of(color: int, bits: int, width: int, height: int, packed: bytes) -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        return (struct.pack(">I", len(content)) + name + content
                + struct.pack(">I", zlib.crc32(name + content)))  # fmt: skip

    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return start + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def files(photo: Image.Image) -> dict[str, bytes]:
    """Return a file of each format and variant that ingest supports."""
    alpha = photo.copy()
    alpha.putalpha(Image.linear_gradient("L").resize(photo.size))
    exif = Image.Exif()
    exif[0x0112] = 6
    gray, palette = photo.convert("L"), photo.convert("P")
    arithmetic = bytearray(encode(gray, "JPEG"))
    arithmetic[arithmetic.index(b"\xff\xc0") + 1] = 0xC9
    return {
        "jpeg": encode(photo, "JPEG"),
        "jpeg-gray": encode(gray, "JPEG"),
        "jpeg-progressive": encode(photo, "JPEG", progressive=True),
        "jpeg-rgb": encode(photo, "JPEG", keep_rgb=True),
        "jpeg-cmyk": encode(photo.convert("CMYK"), "JPEG"),
        "jpeg-rotated": encode(photo, "JPEG", exif=exif),
        "jpeg-restarts": encode(photo, "JPEG", restart_marker_blocks=2),
        "jpeg-arithmetic": bytes(arithmetic),
        "png": encode(photo, "PNG"),
        "png-gray": encode(gray, "PNG"),
        "png-alpha": encode(alpha, "PNG"),
        "png-palette": encode(palette, "PNG"),
        "png-one-bit": encode(photo.convert("1"), "PNG"),
        "png-small": encode(photo.resize((28, 20)), "PNG"),
        "gif": encode(photo, "GIF"),
        "gif-animated": encode(photo, "GIF", save_all=True, append_images=[photo.rotate(90)]),
        "bmp": encode(photo, "BMP"),
        "bmp-one-bit": encode(photo.convert("1"), "BMP"),
        "bmp-palette": encode(palette, "BMP"),
        "webp": encode(photo, "WEBP", quality=95),
        "webp-lossless": encode(alpha, "WEBP", lossless=True),
        "webp-animated": encode(photo, "WEBP", save_all=True, append_images=[photo.rotate(90)]),
    }


def stored_of(data: bytes) -> bytes | None:
    """Return the bytes that ingest stores of a file; None if it is invalid."""
    try:
        stats = validate_image(data, max_pixels=10**7)
    except InvalidImageError:
        return None
    return data if stats.encoded is None else stats.encoded


@pytest.mark.parametrize("name", files(Image.new("RGB", (8, 8))))
def test_stored_bytes_are_decoded_to_the_same_pixels(make_photo: Photo, name: str) -> None:
    data = files(make_photo(31, px=120).resize((120, 90)))[name]
    stats = validate_image(data, max_pixels=10**6)
    pixels = decode_image(tf.constant(stats.encoded or data)).numpy()
    assert pixels.shape == (stats.height, stats.width, 3)
    expected = np.asarray(over_white(ImageOps.exif_transpose(Image.open(io.BytesIO(data)))))
    # Decoders of JPEG and lossy WebP may upsample colors in different ways.
    mean = np.abs(pixels.astype(int) - expected).mean()
    assert mean < (3 if name.startswith(("jpeg", "webp")) else 0.6)


STREAMS = {
    "no checksum": lambda packed: packed[:-4],
    "half a checksum": lambda packed: packed[:-2],
    "incorrect checksum": lambda packed: packed[:-4] + b"abcd",
}


@pytest.mark.parametrize("px", [8, 200])
@pytest.mark.parametrize(("color", "bits"), [(0, 8), (2, 8), (6, 8), (0, 16)])
@pytest.mark.parametrize("damage", STREAMS)
def test_png_without_its_end_is_damaged(px: int, color: int, bits: int, damage: str) -> None:
    row = px * {0: 1, 2: 3, 6: 4}[color] * bits // 8
    pixels = np.random.default_rng(0).integers(0, 256, (px, row + 1), dtype=np.uint8)
    pixels[:, 0] = 0
    packed = zlib.compress(pixels.tobytes())
    assert stored_of(png_of(color, bits, px, px, packed)) is not None
    data = png_of(color, bits, px, px, STREAMS[damage](packed))
    assert stored_of(data) is None
    assert unpack_small(data, max_side_px=40, max_pixels=10**6) is None
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode_image(tf.constant(data))
    if damage != "incorrect checksum":
        Image.open(io.BytesIO(data)).load()


def test_a_segment_within_the_stream_of_a_jpeg_is_damage(make_photo: Photo) -> None:
    data = bytearray(encode(make_photo(32, px=120), "JPEG"))
    data[-200:-196] = b"\xff\xe1\xff\xf0"
    Image.open(io.BytesIO(data)).load()
    with pytest.raises(InvalidImageError, match="no end marker"):
        validate_image(bytes(data), max_pixels=10**6)
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode_image(tf.constant(bytes(data)))


def damaged(data: bytes, random: np.random.Generator) -> bytes:
    """Cut a file, change some bytes, or put a JPEG marker somewhere."""
    changed = bytearray(data)
    match random.integers(3):
        case 0:
            return bytes(changed[: random.integers(1, len(data))])
        case 1:
            for _ in range(random.integers(1, 6)):
                changed[random.integers(len(data))] = random.integers(256)
        case 2:
            position = random.integers(len(data) - 1)
            changed[position : position + 2] = bytes((0xFF, random.integers(0xC0, 256)))
    return bytes(changed)


def damaged_files(photo: Image.Image, each: int) -> Iterator[tuple[str, bytes]]:
    random = np.random.default_rng(5)
    for name, data in files(photo).items():
        for _ in range(each):
            yield name, damaged(data, random)


def test_damaged_files_that_are_valid_are_served(make_photo: Photo) -> None:
    kept = 0
    for name, data in damaged_files(make_photo(33, px=100), each=20):
        stored = stored_of(data)
        if stored is not None:
            kept += 1
            assert decode_image(tf.constant(stored)).shape[2] == 3, name
    assert kept > 50


def test_a_jpeg_at_small_scale_is_checked_as_in_full_size(make_photo: Photo) -> None:
    for name, data in damaged_files(make_photo(34, px=300), each=30):
        if name.startswith("jpeg") and stored_of(data) is not None:
            Image.open(io.BytesIO(data)).load()


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_small_images_are_measured_together_as_alone(make_photo: Photo, mode: str) -> None:
    photos = [make_photo(seed, px=px).convert(mode) for seed in range(6) for px in (5, 28, 39)]
    photos.append(Image.new(mode, (28, 28)))
    encoded = [encode(photo, "PNG") for photo in photos]
    unpacked = [unpack_small(data, max_side_px=39, max_pixels=10**6) for data in encoded]
    together = list(measure_small_images([png for png in unpacked if png], with_hash=True))
    assert together == [validate_image(data, max_pixels=10**6) for data in encoded]
