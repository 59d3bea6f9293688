"""Image augmentation with an explicit seed: the same seed gives the same view."""

from __future__ import annotations

from dataclasses import astuple, dataclass

import tensorflow as tf

from regraft_core.formats.options.extract_features import Strength


@dataclass(frozen=True)
class Ranges:
    """Half-widths of the random ranges, for one operation each.

    They are fractions of a full turn (rotation), of the size (zoom, shear and translation), of the
    image's own contrast, saturation and sharpness, or of the pixels' range: brightness, and the
    solarized upper end. `picked` is the number of operations that a view has, chosen for each
    image; None stands for all.
    """

    rotation: float = 0.0
    zoom: float = 0.0
    shear: float = 0.0
    translation: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    sharpness: float = 0.0
    solarization: float = 0.0
    picked: int | None = None


# `random` is a policy like RandAugment (Cubuk et al., 2020): two operations, each wider.
RANGES: dict[str, Ranges] = {
    "flip": Ranges(),
    "light": Ranges(
        rotation=0.03, zoom=0.10, translation=0.05, brightness=0.10, contrast=0.10
    ),
    "strong": Ranges(
        rotation=0.08, zoom=0.25, translation=0.12, brightness=0.25, contrast=0.30
    ),
    "random": Ranges(
        rotation=0.08, zoom=0.25, shear=0.25, translation=0.20, brightness=0.30, contrast=0.50,
        saturation=0.80, sharpness=0.90, solarization=0.40, picked=2,
    ),
}  # fmt: skip
OPERATIONS = len(Ranges.__dataclass_fields__) - 1
# Weights of red, green and blue in the brightness that the eye sees (ITU-R BT.601).
LUMA = (0.299, 0.587, 0.114)


def augment(
    pixels: tf.Tensor, seeds: tf.Tensor, strength: Strength, *, flips: bool = False
) -> tf.Tensor:
    """Return one random view of each image.

    Args:
        pixels: float32 [n, h, w, 3] in 0..255.
        seeds: int32 [n, 2], one seed per image; equal seeds give equal views.
        strength: `off` returns the images unchanged.
        flips: mirror about half of the images; `flip` does nothing else.

    Returns:
        float32 [n, h, w, 3] in 0..255.
    """
    if strength == "off":
        return pixels
    ranges = RANGES[strength]
    random = tf.map_fn(
        lambda seed: tf.random.stateless_uniform([2 * OPERATIONS + 2], seed, -1.0, 1.0),
        seeds,
        fn_output_signature=tf.TensorSpec([2 * OPERATIONS + 2], tf.float32),
    )
    mirrored = (random[:, 0] >= 0.0) & (flips or strength == "flip")
    if strength == "flip":
        return tf.where(mirrored[:, None, None, None], tf.reverse(pixels, [2]), pixels)
    change = _changes(random[:, 2:], ranges)
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=pixels,
        transforms=_affine(change, random[:, 1], mirrored, tf.shape(pixels)[1:3]),
        output_shape=tf.shape(pixels)[1:3],
        interpolation="BILINEAR",
        fill_mode="REFLECT",
        fill_value=0.0,
    )
    return _recolor(moved, {name: one[:, None, None, None] for name, one in change.items()}, ranges)


def _changes(random: tf.Tensor, ranges: Ranges) -> dict[str, tf.Tensor]:
    """Return how much each operation changes each image, [n] by name; 0 if it is not picked."""
    *widths, picked = astuple(ranges)
    amounts = random[:, :OPERATIONS] * tf.constant(widths)
    if picked is not None:
        ranks = random[:, OPERATIONS:]
        last = tf.math.top_k(ranks, picked).values[:, -1:]
        amounts = tf.where(ranks >= last, amounts, 0.0)
    return dict(zip(Ranges.__dataclass_fields__, tf.unstack(amounts, axis=1), strict=False))


def _affine(
    change: dict[str, tf.Tensor], direction: tf.Tensor, mirrored: tf.Tensor, size: tf.Tensor
) -> tf.Tensor:
    """Return projective transforms [n, 8] from output to input coordinates, about the center.

    The image moves by the fraction `translation` of its size in a `direction`, -1 to 1.
    """
    height, width = tf.unstack(tf.cast(size, tf.float32))
    turn = 6.283185307179586
    flip = tf.where(mirrored, -1.0, 1.0)
    angle, scale = change["rotation"] * turn, 1.0 + change["zoom"]
    a, c = scale * tf.cos(angle), scale * tf.sin(angle)
    b, d = a * change["shear"] - c, c * change["shear"] + a
    a, c = a * flip, c * flip
    center_x, center_y = (width - 1.0) / 2.0, (height - 1.0) / 2.0
    course = direction * turn / 2.0
    shift_x = center_x + change["translation"] * tf.cos(course) * width
    shift_y = center_y + change["translation"] * tf.sin(course) * height
    zero = tf.zeros_like(a)
    return tf.stack(
        [a, b, shift_x - a * center_x - b * center_y,
         c, d, shift_y - c * center_x - d * center_y, zero, zero], axis=1)  # fmt: skip


def _recolor(pixels: tf.Tensor, change: dict[str, tf.Tensor], ranges: Ranges) -> tf.Tensor:
    """Change the colors of images [n, h, w, 3] by amounts [n, 1, 1, 1]; skip unused operations."""
    if ranges.sharpness:
        kernel = tf.constant(1.0 / 9.0, shape=[3, 3, 3, 1])
        framed = tf.pad(pixels, [[0, 0], [1, 1], [1, 1], [0, 0]], "SYMMETRIC")
        smooth = tf.nn.depthwise_conv2d(framed, kernel, [1, 1, 1, 1], "VALID")
        pixels += change["sharpness"] * (pixels - smooth)
    if ranges.saturation:
        gray = tf.reduce_sum(pixels * tf.constant(LUMA), axis=3, keepdims=True)
        pixels += change["saturation"] * (pixels - gray)
    mean = tf.reduce_mean(pixels, axis=[1, 2, 3], keepdims=True)
    pixels = (pixels - mean) * (1.0 + change["contrast"]) + mean + 255.0 * change["brightness"]
    pixels = tf.clip_by_value(pixels, 0.0, 255.0)
    if ranges.solarization:
        brightest = 255.0 * (1.0 - tf.abs(change["solarization"]))
        pixels = tf.where(pixels > brightest, 255.0 - pixels, pixels)
    return pixels
