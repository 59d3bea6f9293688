"""Corruptions of images that a camera or a network may cause, each at three strengths.

The kinds are five of those of Hendrycks and Dietterich (2019) or like them. They apply to the
model's input, in units of its side and of the range of pixels, so that a strength means the same at
each size.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

Pixels = NDArray[np.float32]
STRENGTHS = 3
# Standard deviation of the blur, as a fraction of the side, and at least in pixels: one of a small
# fraction of a pixel changes nothing.
_BLUR, _BLUR_PX = (0.005, 0.01, 0.02), (0.5, 1.0, 1.5)
# Standard deviation of the noise, and the change of brightness, as fractions of the range.
_NOISE, _BRIGHTNESS = (0.04, 0.08, 0.16), (0.1, 0.2, 0.3)
_JPEG_QUALITY = (50, 25, 10)
# Fraction of the area that a gray square hides.
_OCCLUSION = (0.05, 0.15, 0.3)
_GRAY, _HIGHEST = 127.5, 255.0


def corrupt(pixels: Pixels, kind: str, strength: int, seed: int) -> Pixels:
    """Return corrupted images, float32 [n, h, w, 3] in 0..255.

    Args:
        pixels: float32 [n, h, w, 3] in 0..255.
        kind: a key of `CORRUPTIONS`.
        strength: 1 to 3.
        seed: of noise, direction and position; equal seeds give equal images.
    """
    rng = np.random.default_rng(seed)
    corrupted = CORRUPTIONS[kind](pixels, strength - 1, rng)
    return np.clip(corrupted, 0.0, _HIGHEST).astype(np.float32)


def _blur(pixels: Pixels, index: int, rng: np.random.Generator) -> Pixels:
    deviation = max(_BLUR[index] * max(pixels.shape[1:3]), _BLUR_PX[index])
    blurred: Pixels = gaussian_filter(pixels, (0, deviation, deviation, 0), mode="nearest")
    return blurred


def _noise(pixels: Pixels, index: int, rng: np.random.Generator) -> Pixels:
    noisy: Pixels = rng.standard_normal(pixels.shape, np.float32)
    noisy *= _NOISE[index] * _HIGHEST
    noisy += pixels
    return noisy


def _brightness(pixels: Pixels, index: int, rng: np.random.Generator) -> Pixels:
    """Make half of the images brighter and the others darker."""
    direction = rng.choice(np.array([-1.0, 1.0], np.float32), (len(pixels), 1, 1, 1))
    changed = pixels.copy()
    changed += direction * (_BRIGHTNESS[index] * _HIGHEST)
    return changed


def _jpeg(pixels: Pixels, index: int, rng: np.random.Generator) -> Pixels:
    compressed = np.empty_like(pixels)
    for image, target in zip(pixels.round().astype(np.uint8), compressed, strict=True):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=_JPEG_QUALITY[index])
        with Image.open(buffer) as opened:
            target[:] = np.asarray(opened)
    return compressed


def _occlusion(pixels: Pixels, index: int, rng: np.random.Generator) -> Pixels:
    hidden = pixels.copy()
    count, height, width, _ = pixels.shape
    side = max(round((_OCCLUSION[index] * height * width) ** 0.5), 1)
    tops, lefts = (rng.integers(0, max(one - side, 0) + 1, count) for one in (height, width))
    for image, top, left in zip(hidden, tops, lefts, strict=True):
        image[top : top + side, left : left + side] = _GRAY
    return hidden


CORRUPTIONS: Mapping[str, Callable[[Pixels, int, np.random.Generator], Pixels]] = {
    "blur": _blur,
    "noise": _noise,
    "brightness": _brightness,
    "jpeg": _jpeg,
    "occlusion": _occlusion,
}
