"""Reads format, size and orientation from the first bytes of encoded images, in batches.

Written in TensorFlow operations on vectors of strings, so that an exported graph contains it and a
batch costs hardly more than one image. No pixels are decoded and no byte is trusted: positions
outside an image read as zeros.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

JPEG, PNG, GIF, BMP, WEBP = range(5)
FORMATS = "JPEG, PNG, GIF, BMP or WebP"
HEAD_BYTES = 34
MAX_SEGMENTS = 64
MAX_TAGS = 128
UPRIGHT = 1


@dataclass(frozen=True)
class _Signature:
    """The first bytes of a format (`?` is any byte) and the position of its width and height.

    A side is `(value >> shift & mask) + add` of the bytes `start`..`start + length`, little-endian
    unless `big`.
    """

    begin: bytes
    format: int
    starts: tuple[int, int] = (0, 0)
    length: int = 0
    big: bool = False
    shifts: tuple[int, int] = (0, 0)
    mask: int = 0xFFFFFFFF
    add: int = 0


_SIGNATURES = (
    _Signature(b"\xff\xd8\xff", JPEG),
    _Signature(b"\x89PNG\r\n\x1a\n????IHDR", PNG, (16, 20), 4, big=True),
    _Signature(b"GIF87a", GIF, (6, 8), 2),
    _Signature(b"GIF89a", GIF, (6, 8), 2),
    _Signature(b"BM", BMP, (18, 22), 4),
    _Signature(b"RIFF????WEBPVP8 ", WEBP, (26, 28), 2, mask=0x3FFF),
    _Signature(b"RIFF????WEBPVP8L", WEBP, (21, 21), 4, shifts=(0, 14), mask=0x3FFF, add=1),
    _Signature(b"RIFF????WEBPVP8X", WEBP, (24, 27), 3, add=1),
)
UNKNOWN = len(_SIGNATURES)


def _side_weights() -> np.ndarray:
    """Return int64 `[signatures + 1, HEAD_BYTES, 2]`: weight of each byte in width and height."""
    weights = np.zeros((UNKNOWN + 1, HEAD_BYTES, 2), np.int64)
    for row, signature in zip(weights, _SIGNATURES, strict=False):
        for side, start in enumerate(signature.starts):
            for index in range(signature.length):
                power = signature.length - 1 - index if signature.big else index
                row[start + index, side] = 256**power
    return weights


@dataclass(frozen=True)
class Headers:
    """Of n images: `format` int32 `[n]` (-1 if unknown), `sides` int64 `[n, 2]`: width, height.

    The sides of a JPEG are 0, because they follow segments of any length.
    """

    format: tf.Tensor
    sides: tf.Tensor


def read_headers(encoded: tf.Tensor) -> Headers:
    """Read formats and sides of encoded images, a string tensor `[n]`."""
    head = window(encoded, tf.zeros_like(tf.strings.length(encoded)), HEAD_BYTES)
    pattern = np.zeros((UNKNOWN, 16), np.int32)
    known = np.zeros((UNKNOWN, 16), bool)
    for row, signature in enumerate(_SIGNATURES):
        length = len(signature.begin)
        pattern[row, :length] = list(signature.begin)
        known[row, :length] = [byte != ord("?") for byte in signature.begin]
    matches = tf.reduce_all((head[:, tf.newaxis, :16] == pattern) | ~known, axis=-1)
    matches = tf.concat([matches, tf.ones_like(matches[:, :1])], axis=1)
    which = tf.argmax(tf.cast(matches, tf.int32), axis=1)

    def of_each(values: list[int], dtype: tf.DType) -> tf.Tensor:
        return tf.gather(tf.constant(values, dtype), which)

    values = tf.reduce_sum(
        tf.cast(head, tf.int64)[:, :, tf.newaxis] * tf.gather(_side_weights(), which), axis=1
    )
    shifts = tf.gather(tf.constant([*(s.shifts for s in _SIGNATURES), (0, 0)], tf.int64), which)
    masks = of_each([*(s.mask for s in _SIGNATURES), 0], tf.int64)
    adds = of_each([*(s.add for s in _SIGNATURES), 0], tf.int64)
    sides = tf.bitwise.bitwise_and(tf.bitwise.right_shift(values, shifts), masks[:, tf.newaxis])
    sides += adds[:, tf.newaxis]
    # A BMP whose rows are stored from top to bottom has a negative height.
    sides = tf.minimum(sides, 2**32 - sides)
    return Headers(of_each([*(s.format for s in _SIGNATURES), -1], tf.int32), sides)


def require(
    encoded: tf.Tensor,
    condition: tf.Tensor,
    index: tf.Tensor,
    expected: str,
    *received: tf.Tensor,
) -> tf.Tensor:
    """Return `encoded` if `condition`, otherwise fail with InvalidArgumentError.

    The decoder must use the returned value: an assertion next to the decoder may run after it.

    Args:
        encoded: the value to return, of any type.
        condition: bool `[]`.
        index: of the image in its batch, int `[]`.
        expected: what was expected and, with a `{}` for each of `received`, what was received.
    """

    # No tf.cond around it: its branches would be functions, which cost every new iterator of a
    # dataset milliseconds each.
    text = tf.strings.format(f"image {{}}: expected {expected}", (index, *received))
    with tf.control_dependencies([tf.raw_ops.Assert(condition=condition, data=[text])]):
        return tf.identity(encoded)


def window(encoded: tf.Tensor, start: tf.Tensor, length: int) -> tf.Tensor:
    """Return `length` bytes of each string from `start` (int32 `[n]`) on, as int32 `[n, length]`.

    Bytes outside a string are 0.
    """
    start = tf.clip_by_value(start, 0, tf.strings.length(encoded))
    part = tf.strings.substr(encoded, start, tf.fill(tf.shape(start), length))
    return tf.cast(tf.io.decode_raw(part, tf.uint8, fixed_length=length), tf.int32)


def read_orientations(encoded: tf.Tensor, is_jpeg: tf.Tensor) -> tf.Tensor:
    """Return the EXIF orientations 1..8 of JPEG images, int32 `[n]`; 1 for other or damaged ones.

    EXIF is expected where its standard defines it: in an APP1 segment among the application
    segments and comments that precede all others. Orientation in PNG and WebP is ignored.

    Args:
        encoded: string `[n]`.
        is_jpeg: bool `[n]`.
    """
    tiff = _find_tiff(encoded, is_jpeg)
    return tf.cond(
        tf.reduce_any(tiff > 0),
        lambda: _orientation_in_tiff(encoded, tiff),
        lambda: tf.fill(tf.shape(tiff), UPRIGHT),
    )


def _find_tiff(encoded: tf.Tensor, is_jpeg: tf.Tensor) -> tf.Tensor:
    """Return the offset of the TIFF structure of each image's EXIF, int32 `[n]`; 0 if none."""

    def step(start: tf.Tensor, tiff: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        bytes_ = window(encoded, start, 10)
        marker = bytes_[:, 1]
        padding = (bytes_[:, 0] == 0xFF) & (marker == 0xFF)
        skippable = (bytes_[:, 0] == 0xFF) & ((marker // 16 == 0xE) | (marker == 0xFE))
        size = bytes_[:, 2] * 256 + bytes_[:, 3]
        is_exif = (marker == 0xE1) & tf.reduce_all(bytes_[:, 4:] == list(b"Exif\0\0"), axis=1)
        is_exif &= skippable & (start > 0)
        following = tf.where(skippable & (size >= 2), start + 2 + size, 0)
        following = tf.where(padding & (start > 0), start + 1, following)
        following = tf.where((start > 0) & ~is_exif, following, 0)
        return following, tf.where(is_exif, start + 10, tiff)

    start = tf.where(is_jpeg, 2, 0)
    _, tiff = tf.while_loop(
        lambda start, _: tf.reduce_any(start > 0),
        step,
        (start, tf.zeros_like(start)),
        maximum_iterations=MAX_SEGMENTS,
    )
    return tiff


def _orientation_in_tiff(encoded: tf.Tensor, tiff: tf.Tensor) -> tf.Tensor:
    """Read tag 0x0112 (SHORT) of the first directory of the TIFF at `tiff`, int32 `[n]`."""
    head = window(encoded, tiff, 8)
    little = tf.reduce_all(head[:, :4] == list(b"II*\0"), axis=1)
    big = tf.reduce_all(head[:, :4] == list(b"MM\0*"), axis=1)

    def number(bytes_: tf.Tensor) -> tf.Tensor:
        """Read the last axis as a number in each image's byte order."""
        shape = [-1] + [1] * (len(bytes_.shape) - 2)
        up = [256**k for k in range(bytes_.shape[-1])]
        return tf.where(
            tf.reshape(little, shape),
            tf.reduce_sum(bytes_ * up, axis=-1),
            # Not a slice of a tensor with a negative step: Grappler takes a vector of integers for
            # a shape, fails to slice it, and logs an error in every process.
            tf.reduce_sum(bytes_ * up[::-1], axis=-1),
        )

    # A directory farther away than a segment can be long is damage; high bytes would overflow.
    offset = number(head[:, 4:8])
    near = (offset >= 8) & (offset < 65536)
    directory = window(encoded, tiff + tf.where(near, offset, 0), 2 + 12 * MAX_TAGS)
    count = number(directory[:, :2])
    tags = tf.reshape(directory[:, 2:], [-1, MAX_TAGS, 12])
    is_it = (number(tags[:, :, 0:2]) == 0x0112) & (number(tags[:, :, 2:4]) == 3)
    is_it &= tf.range(MAX_TAGS) < count[:, tf.newaxis]
    values = number(tags[:, :, 8:10])
    index = tf.argmax(tf.cast(is_it, tf.int32), axis=1)
    value = tf.gather(values, index, batch_dims=1)
    valid = (little | big) & near & (tiff > 0) & tf.reduce_any(is_it, axis=1)
    return tf.where(valid & (value >= 1) & (value <= 8), value, UPRIGHT)
