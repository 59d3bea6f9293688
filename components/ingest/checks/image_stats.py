"""Measurements of a valid image: size, brightness, contrast, and a hash to find duplicates."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import imagehash
import numpy as np
from PIL import Image
from PIL.Image import Resampling

from components.ingest.checks.png import PlainPng, unfilter

THUMBNAIL_PX = 32
MIN_HASHED_SIDE_PX = 40
"""Below this side, perceptual hashes of dissimilar images collide; pixels are compared instead."""
FLAT_LEVELS = 4.0
"""Below this standard deviation (0 .. 255), an image has too little contrast for such a hash."""
DARK_LEVELS = 8.0


class ImageStats(NamedTuple):
    """The measurements of a valid image.

    Attributes:
        encoded: the bytes to store, or None to store the source's own.
        width, height: in pixels, after EXIF orientation.
        hash64: the perceptual hash, or a hash of the pixels if `thumbnail` is empty.
        thumbnail: uint8 [32, 32] gray as bytes; empty for small or flat images, and without hash.
        conversions: what the stored bytes or the model's decoding change.
        notes: `dark` and `flat`, which cause a warning.
    """

    encoded: bytes | None
    width: int
    height: int
    hash64: int
    thumbnail: bytes
    conversions: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class DecodedImage(NamedTuple):
    """A decoded image: `pixels` may be smaller than `size`, the size of the original."""

    pixels: Image.Image
    size: tuple[int, int]
    conversions: tuple[str, ...] = ()
    encoded: bytes | None = None


def measure_image(image: DecodedImage, *, with_hash: bool) -> ImageStats:
    """Measure one decoded image; `with_hash` includes what near duplicates are found by."""
    pixels, (width, height) = image.pixels, image.size
    reduction = min(pixels.size) // (2 * THUMBNAIL_PX)
    small = pixels
    if reduction > 1 and pixels.mode in ("L", "RGB", "RGBA", "LA"):
        small = pixels.reduce(reduction)
    if image.conversions and (small.mode not in ("L", "RGB") or "transparency" in small.info):
        small = over_white(small)
    gray = small if small.mode == "L" else small.convert("L")
    levels = np.frombuffer(gray.tobytes(), dtype=np.uint8)
    mean, deviation = (float(value[0]) for value in _mean_and_deviation(levels[np.newaxis]))
    hash64, thumbnail = 0, b""
    if with_hash and (min(width, height) < MIN_HASHED_SIDE_PX or deviation < FLAT_LEVELS):
        hash64 = _pixel_hash(_hash_key(pixels.mode, (width, height)), pixels.tobytes())
    elif with_hash:
        tiny = gray.resize((THUMBNAIL_PX, THUMBNAIL_PX), Resampling.BOX)
        thumbnail = tiny.tobytes()
        hash64 = int.from_bytes(np.packbits(imagehash.phash(tiny).hash.ravel()).tobytes())
    notes = _notes(mean, deviation)
    return ImageStats(image.encoded, width, height, hash64, thumbnail, image.conversions, notes)


def measure_small_images(images: Sequence[PlainPng], *, with_hash: bool) -> Iterator[ImageStats]:
    """Measure images below `MIN_HASHED_SIDE_PX` as `measure_image` does, by batches of one size.

    Yields:
        The measurements, in the order of the images.
    """
    batches: dict[tuple[str, tuple[int, int]], list[int]] = {}
    for position, image in enumerate(images):
        batches.setdefault((image.mode, image.size), []).append(position)
    stats: dict[int, ImageStats] = {}
    for (mode, (width, height)), positions in batches.items():
        tall = unfilter([images[position] for position in positions])
        shape = (len(positions), height + 1, -1)
        gray = np.asarray(tall if mode == "L" else tall.convert("L")).reshape(shape)
        pixels = np.asarray(tall).reshape(shape)
        levels = _mean_and_deviation(gray[:, :-1].reshape(len(positions), -1))
        key = _hash_key(mode, (width, height))
        measured = zip(positions, *(values.tolist() for values in levels), strict=True)
        for row, (position, mean, deviation) in enumerate(measured):
            hash64 = _pixel_hash(key, pixels[row, :-1].data) if with_hash else 0
            notes = _notes(mean, deviation)
            stats[position] = ImageStats(None, width, height, hash64, b"", (), notes)
    return (stats[position] for position in range(len(images)))


def over_white(image: Image.Image) -> Image.Image:
    """Return `image` as RGB, with its alpha channel (if any) composited over white."""
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        with_alpha = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, with_alpha).convert("RGB")
    return image.convert("RGB")


def _mean_and_deviation(gray: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation (float [n]) of 8-bit gray levels, uint8 [n, pixels]."""
    # Not by np.std, which takes longer than decoding a small image.
    levels = gray.astype(np.float32)
    count = gray.shape[1]
    means = levels.sum(axis=1) / count
    squares = np.einsum("ij,ij->i", levels, levels) / count
    return means, np.sqrt(np.maximum(0.0, squares - means * means))


def _notes(mean: float, deviation: float) -> tuple[str, ...]:
    if deviation >= FLAT_LEVELS and mean >= DARK_LEVELS:
        return ()
    return ("flat",) * (deviation < FLAT_LEVELS) + ("dark",) * (mean < DARK_LEVELS)


def _hash_key(mode: str, size: tuple[int, int]) -> bytes:
    return b"%d %d %b" % (*size, mode.encode())


def _pixel_hash(key: bytes, pixels: bytes | memoryview) -> int:
    """Return a 64-bit hash of pixels; `key` is of their mode and size."""
    return int.from_bytes(hashlib.blake2b(pixels, digest_size=8, key=key).digest())
