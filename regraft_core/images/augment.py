"""Image augmentation with an explicit seed: the same seed gives the same view."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import tensorflow as tf

Strength = Literal["off", "light", "strong"]


@dataclass(frozen=True)
class Ranges:
    """Half-widths of the random ranges: fractions of size, full turn, brightness and contrast."""

    flip: bool
    rotation: float
    zoom: float
    translation: float
    brightness: float
    contrast: float


RANGES: dict[str, Ranges] = {
    "light": Ranges(True, 0.03, 0.10, 0.05, 0.10, 0.10),
    "strong": Ranges(True, 0.08, 0.25, 0.12, 0.25, 0.30),
}


def augment(pixels: tf.Tensor, seeds: tf.Tensor, strength: Strength) -> tf.Tensor:
    """Return one random view of each image.

    Args:
        pixels: float32 [n, h, w, 3] in 0..255.
        seeds: int32 [n, 2], one seed per image; equal seeds give equal views.
        strength: `off` returns the images unchanged.

    Returns:
        float32 [n, h, w, 3] in 0..255.
    """
    if strength == "off":
        return pixels
    ranges = RANGES[strength]
    random = tf.map_fn(
        lambda seed: tf.random.stateless_uniform([7], seed, -1.0, 1.0),
        seeds,
        fn_output_signature=tf.TensorSpec([7], tf.float32),
    )
    size = tf.cast(tf.shape(pixels)[1:3], tf.float32)
    transforms = _affine(random, ranges, size)
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=pixels,
        transforms=transforms,
        output_shape=tf.shape(pixels)[1:3],
        interpolation="BILINEAR",
        fill_mode="REFLECT",
        fill_value=0.0,
    )
    contrast = 1.0 + ranges.contrast * random[:, 5]
    brightness = 255.0 * ranges.brightness * random[:, 6]
    mean = tf.reduce_mean(moved, axis=[1, 2, 3], keepdims=True)
    toned = (moved - mean) * contrast[:, None, None, None] + mean + brightness[:, None, None, None]
    return tf.clip_by_value(toned, 0.0, 255.0)


def _affine(random: tf.Tensor, ranges: Ranges, size: tf.Tensor) -> tf.Tensor:
    """Return projective transforms [n, 8] from output to input coordinates, about the center."""
    height, width = size[0], size[1]
    flip = tf.where(random[:, 0] < 0.0, -1.0, 1.0) if ranges.flip else tf.ones_like(random[:, 0])
    angle = random[:, 1] * ranges.rotation * 6.283185307179586
    scale = 1.0 + random[:, 2] * ranges.zoom
    a, b = scale * tf.cos(angle) * flip, -scale * tf.sin(angle)
    c, d = scale * tf.sin(angle) * flip, scale * tf.cos(angle)
    center_x, center_y = (width - 1.0) / 2.0, (height - 1.0) / 2.0
    shift_x = center_x + random[:, 3] * ranges.translation * width
    shift_y = center_y + random[:, 4] * ranges.translation * height
    zero = tf.zeros_like(a)
    return tf.stack(
        [a, b, shift_x - a * center_x - b * center_y,
         c, d, shift_y - c * center_x - d * center_y, zero, zero], axis=1)  # fmt: skip
