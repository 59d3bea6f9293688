"""What is seen of a good image: size, darkness, structure, and a hash to find copies by."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import imagehash
import numpy as np
from PIL import Image
from PIL.Image import Resampling

from components.ingest.checks.png import SmallPng, unfilter

LOOK_PX = 32
MIN_LOOK_SIDE_PX = 40
"""Below this side, a perceptual hash of unlike images collides; only equal pixels count."""
FLAT_LEVELS = 4.0
"""Below this standard deviation (0 .. 255), an image has no structure that a hash could tell."""
DARK_LEVELS = 8.0


class ImageStats(NamedTuple):
    """What was seen of a good image.

    Attributes:
        encoded: the bytes to store, or None to store the source's own.
        form: of the source: jpeg, png, gif, bmp or webp.
        width, height: as people see it, after EXIF orientation.
        hash64: the perceptual hash, or a hash of the pixels where `thumb` is empty.
        thumb: uint8 [32, 32] gray as bytes, or empty for images too small or flat to compare.
        conversions: what the stored bytes or the model's decoding change.
        notes: `dark` and `flat`, worth a warning.
    """

    encoded: bytes | None
    form: str
    width: int
    height: int
    hash64: int
    thumb: bytes
    conversions: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class DecodedImage(NamedTuple):
    """A decoded image: `shown`, perhaps smaller than its `size`, and what was converted."""

    shown: Image.Image
    size: tuple[int, int]
    conversions: tuple[str, ...] = ()
    encoded: bytes | None = None


def measure_image(seen: DecodedImage, form: str, *, hashed: bool) -> ImageStats:
    """Measure one decoded image; `hashed`: also what near duplicates are found by."""
    shown, (width, height) = seen.shown, seen.size
    shrink = min(shown.size) // (2 * LOOK_PX)
    small = shown
    if shrink > 1 and shown.mode in ("L", "RGB", "RGBA", "LA"):
        small = shown.reduce(shrink)
    if seen.conversions and (small.mode not in ("L", "RGB") or "transparency" in small.info):
        small = over_white(small)
    gray = small if small.mode == "L" else small.convert("L")
    levels = np.frombuffer(gray.tobytes(), dtype=np.uint8)
    mean, deviation = (float(value[0]) for value in _levels(levels[np.newaxis]))
    hash64, thumb = 0, b""
    if hashed and (min(width, height) < MIN_LOOK_SIDE_PX or deviation < FLAT_LEVELS):
        hash64 = _pixel_hash(_kind(shown.mode, (width, height)), shown.tobytes())
    elif hashed:
        tiny = gray.resize((LOOK_PX, LOOK_PX), Resampling.BOX)
        thumb = tiny.tobytes()
        hash64 = int.from_bytes(np.packbits(imagehash.phash(tiny).hash.ravel()).tobytes())
    notes = _notes(mean, deviation)
    return ImageStats(seen.encoded, form, width, height, hash64, thumb, seen.conversions, notes)


def measure_small_images(images: Sequence[SmallPng], *, hashed: bool) -> Iterator[ImageStats]:
    """Measure small images as `measure_image` does, those of one size together; in their order."""
    alike: dict[tuple[str, tuple[int, int]], list[int]] = {}
    for position, image in enumerate(images):
        alike.setdefault((image.mode, image.size), []).append(position)
    looks: dict[int, ImageStats] = {}
    for (mode, (width, height)), positions in alike.items():
        tall = unfilter([images[position] for position in positions])
        shape = (len(positions), height + 1, -1)
        gray = np.asarray(tall if mode == "L" else tall.convert("L")).reshape(shape)
        pixels = np.asarray(tall).reshape(shape)
        levels, kind = (
            _levels(gray[:, :-1].reshape(len(positions), -1)),
            _kind(mode, (width, height)),
        )
        measured = zip(positions, *(values.tolist() for values in levels), strict=True)
        for row, (position, mean, deviation) in enumerate(measured):
            hash64 = _pixel_hash(kind, pixels[row, :-1].data) if hashed else 0
            notes = _notes(mean, deviation)
            looks[position] = ImageStats(None, "png", width, height, hash64, b"", (), notes)
    return (looks[position] for position in range(len(images)))


def over_white(image: Image.Image) -> Image.Image:
    """Return `image` as RGB, its alpha (if any) laid over white."""
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        with_alpha = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, with_alpha).convert("RGB")
    return image.convert("RGB")


def _levels(gray: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation (float [n]) of 8-bit gray levels, uint8 [n, pixels]."""
    # Not by numpy's std, which takes longer than decoding a small image.
    levels = gray.astype(np.float32)
    count = gray.shape[1]
    means = levels.sum(axis=1) / count
    squares = np.einsum("ij,ij->i", levels, levels) / count
    return means, np.sqrt(np.maximum(0.0, squares - means * means))


def _notes(mean: float, deviation: float) -> tuple[str, ...]:
    if deviation >= FLAT_LEVELS and mean >= DARK_LEVELS:
        return ()
    return ("flat",) * (deviation < FLAT_LEVELS) + ("dark",) * (mean < DARK_LEVELS)


def _kind(mode: str, size: tuple[int, int]) -> bytes:
    return b"%d %d %b" % (*size, mode.encode())


def _pixel_hash(kind: bytes, pixels: bytes | memoryview) -> int:
    """Return a 64-bit hash of size and mode (`kind`) and pixels."""
    return int.from_bytes(hashlib.blake2b(pixels, digest_size=8, key=kind).digest())
