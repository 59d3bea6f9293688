"""Headers: formats, sides and orientations of batches, for any bytes."""

from __future__ import annotations

import importlib.util
import io
import struct
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from regraft_core.images.headers import (
    BMP,
    GIF,
    JPEG,
    PNG,
    WEBP,
    read_headers,
    read_orientations,
    window,
)

# Test modules are imported separately, so the builders of conftest.py are loaded by path.
_SPEC = importlib.util.spec_from_file_location("images", Path(__file__).parents[1] / "conftest.py")
assert _SPEC and _SPEC.loader
images = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(images)
exif_jpeg, tiff = images.exif_jpeg, images.tiff


def orientations(encoded: list[bytes]) -> list[int]:
    texts = tf.constant(encoded)
    return read_orientations(texts, read_headers(texts).format == JPEG).numpy().tolist()


def test_formats_and_sides_of_a_mixed_batch(samples: dict[str, bytes]) -> None:
    headers = read_headers(tf.constant(list(samples.values())))
    kinds = {"jpeg": JPEG, "exif": JPEG, "png": PNG, "gif": GIF, "bmp": BMP, "webp": WEBP}
    assert headers.format.numpy().tolist() == [kinds[name.split()[0]] for name in samples]
    for name, encoded, sides in zip(samples, samples.values(), headers.sides.numpy(), strict=True):
        size = Image.open(io.BytesIO(encoded)).size
        assert tuple(sides) == ((0, 0) if kinds[name.split()[0]] == JPEG else size)


def test_a_window_outside_a_string_is_zero() -> None:
    texts = tf.constant([b"abc", b"", b"abcdef"])
    windows = window(texts, tf.constant([1, 5, -3]), 4)
    assert windows.numpy().tolist() == [[98, 99, 0, 0], [0] * 4, [97, 98, 99, 100]]


@pytest.mark.parametrize("order", ["<", ">"])
def test_orientation_in_both_byte_orders(order: str) -> None:
    assert orientations([exif_jpeg(tiff(n, order)) for n in range(1, 9)]) == list(range(1, 9))


def test_orientation_after_other_segments() -> None:
    jpeg = exif_jpeg(tiff(6))
    xmp = b"http://ns.adobe.com/xap/1.0/\0<x/>"
    others = [(0xE0, b"JFIF\0" + bytes(9)), (0xFE, b"comment"), (0xE1, xmp), (0xED, bytes(60000))]
    front = b"".join(b"\xff" + bytes([m]) + struct.pack(">H", len(b) + 2) + b for m, b in others)
    assert orientations([jpeg[:2] + front + jpeg[2:]]) == [6]
    assert orientations([jpeg[:2] + b"\xff\xff\xff" + jpeg[2:]]) == [6]


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"II*\0",
        b"XX*\0" + tiff(6)[4:],
        tiff(6)[:4] + b"\xff\xff\xff\xff" + tiff(6)[8:],
        tiff(6)[:4] + struct.pack("<I", 60000) + tiff(6)[8:],
        tiff(6)[:8] + struct.pack("<H", 1) + tiff(6)[10:],
        tiff(0),
        tiff(9),
        tiff(65535),
        tiff(6, kind=4),
        tiff(6, tag=0x0113),
        tiff(6)[:20],
    ],
)
def test_damaged_exif_is_upright(damaged: bytes) -> None:
    assert orientations([exif_jpeg(damaged), exif_jpeg(tiff(3))]) == [1, 3]


def test_tags_are_read_up_to_a_limit() -> None:
    entry = struct.pack("<HHIHH", 0x0110, 3, 1, 7, 0)
    rotated = struct.pack("<HHIHH", 0x0112, 3, 1, 8, 0)
    head = b"II*\0" + struct.pack("<I", 8)
    last = head + struct.pack("<H", 128) + entry * 127 + rotated
    beyond = head + struct.pack("<H", 129) + entry * 128 + rotated
    assert orientations([exif_jpeg(last), exif_jpeg(beyond)]) == [8, 1]


def test_random_bytes_give_valid_results(samples: dict[str, bytes]) -> None:
    rng = np.random.default_rng(5)
    starts = [*samples.values(), exif_jpeg(tiff(6, ">"))]
    mutants = []
    for _ in range(2000):
        mutant = np.frombuffer(starts[rng.integers(len(starts))][:400], np.uint8).copy()
        positions = rng.integers(0, min(len(mutant), 120), rng.integers(1, 8))
        mutant[positions] = rng.integers(0, 256, len(positions))
        mutants.append(mutant[: rng.integers(0, len(mutant) + 1)].tobytes())
    received = orientations(mutants)
    assert set(received) <= set(range(1, 9))
    assert len(set(received)) == 8
    sides = read_headers(tf.constant(mutants)).sides.numpy()
    assert (sides >= 0).all()


def test_segments_are_read_up_to_a_limit() -> None:
    empty = b"\xff\xe2\x00\x02" * 5000
    jpeg = exif_jpeg(tiff(6))
    assert orientations([jpeg[:2] + empty + jpeg[2:], jpeg]) == [1, 6]
