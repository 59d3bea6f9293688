"""Rows of a training batch mixed in pairs: mixup (Zhang et al., 2018), CutMix (Yun et al., 2019).

A mixed row belongs to the classes of both of its parts, in the proportion of these.
"""

from __future__ import annotations

import functools
from typing import Any

import tensorflow as tf

from regraft_core.formats.options.fine_tune import Mix

# The fraction of a row that is kept has a Beta distribution with both parameters equal to this.
CONCENTRATIONS: dict[Mix, float] = {"mixup": 0.2, "cutmix": 1.0}


def mix_rows(
    kind: Mix, seed: tf.Tensor, inputs: Any, targets: tf.Tensor, weights: tf.Tensor
) -> tuple[Any, tf.Tensor, tf.Tensor]:
    """Mix each row of a batch with the next one, the last with the first.

    Args:
        kind: `mixup` makes weighted means; `cutmix` puts a box of the next row into images and
            feature maps, and makes means, with the box's fraction of the area, of other inputs.
        seed: int32 [2]; equal seeds mix equally.
        inputs: float32 [n, ...], or a tuple of such; one of them at most is a map [n, h, w, c].
        targets: probabilities of the classes, float32 [n, k].
        weights: of the rows in the loss, float32 [n].

    Returns:
        Inputs, targets and weights. The loss of a row is that of its two parts, each with its own
        weight.
    """
    if kind == "off":
        return inputs, targets, weights
    kept = _beta(tf.shape(weights)[0], CONCENTRATIONS[kind], seed)
    maps = [tensor for tensor in tf.nest.flatten(inputs) if len(tensor.shape) == 4]
    boxes = None
    if kind == "cutmix" and maps:
        boxes = _boxes(1.0 - kept, tf.shape(maps[0])[1:3], seed)
        kept = 1.0 - tf.reduce_mean(tf.cast(boxes, tf.float32), axis=[1, 2, 3])
    mixed = functools.partial(_mixed, kept=kept, boxes=boxes)
    weighted, total = mixed(targets * weights[:, None]), mixed(weights)
    return tf.nest.map_structure(mixed, inputs), weighted / total[:, None], total


def _mixed(tensor: tf.Tensor, kept: tf.Tensor, boxes: tf.Tensor | None) -> tf.Tensor:
    """Return each row [n, ...] mixed with the next: a fraction of it is `kept` [n]."""
    following = tf.roll(tensor, -1, axis=0)
    if boxes is not None and len(tensor.shape) == 4:
        return tf.where(boxes, following, tensor)
    fraction = tf.reshape(kept, [-1, *[1] * (len(tensor.shape) - 1)])
    return following + fraction * (tensor - following)


def _beta(count: tf.Tensor, concentration: float, seed: tf.Tensor) -> tf.Tensor:
    """Return random values of Beta(c, c), float32 [n]: one gamma variate divided by two."""
    pairs = tf.random.stateless_gamma([count, 2], seed, concentration)
    return tf.math.divide_no_nan(pairs[:, 0], tf.reduce_sum(pairs, axis=1))


def _boxes(area: tf.Tensor, size: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Return where the boxes are, bool [n, h, w, 1].

    They have a fraction `area` [n] of the map and the shape of it, about random centers; the part
    outside the map is missing.
    """
    centers = tf.random.stateless_uniform([tf.shape(area)[0], 2], seed + 1)
    half = tf.sqrt(area)[:, None] / 2.0
    inside = []
    for axis in (0, 1):
        length = tf.cast(size[axis], tf.float32)
        places = (tf.range(length) + 0.5) / length
        inside.append(tf.abs(places[None] - centers[:, axis : axis + 1]) < half)
    return (inside[0][:, :, None] & inside[1][:, None, :])[..., None]
