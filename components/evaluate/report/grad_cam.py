"""Heat maps of the evidence for a prediction: Grad-CAM (Selvaraju et al. 2017)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from regraft_core.backbones.cuts import CutPoint, cut_points, parents_of, topological_order
from regraft_core.training.heads import LEVELS_LAYER

# A map with fewer positions per side shows nothing about locations in the image.
MIN_POSITIONS = 4


def explained_layer(model: keras.Model) -> CutPoint | None:
    """Return the last cut point that is a feature map [n, h, w, c], None without any.

    Cut points work for every backbone, because all evidence goes through them. For small images,
    whose last maps have hardly any positions, it is the last map of at least 4 x 4. The tokens of
    a transformer are a map, too.
    """
    maps = [point for point in cut_points(_backbone(model))[1:] if len(point.tensor.shape) == 4]
    large = [point for point in maps if min(_grid(*point.tensor.shape[1:3])) >= MIN_POSITIONS]
    return large[-1] if large else maps[-1] if maps else None


def _grid(height: int, width: int) -> tuple[int, int]:
    """Return the rows and columns of a map; tokens [1, t, c] end with those of a square grid."""
    return (math.isqrt(width), math.isqrt(width)) if height == 1 else (height, width)


def _backbone(model: keras.Model) -> keras.Model:
    """Return the part of a candidate to its last feature map, if its head reads several levels."""
    pooled = _levels(model)
    return keras.Model(model.input, parents_of(pooled[-1])[0]) if pooled else model


def _levels(model: keras.Model) -> list[Any]:
    """Return the pooled levels that the head reads, if it reads several."""
    if LEVELS_LAYER not in {layer.name for layer in model.layers}:
        return []
    return parents_of(model.get_layer(LEVELS_LAYER).output)


def heat_maps(
    model: keras.Model, inputs: Any, classes: Sequence[int]
) -> NDArray[np.float32] | None:
    """Return the evidence for a class in each image.

    Args:
        model: a complete candidate, returning logits.
        inputs: the backbone's input, float32 [n, px, px, 3].
        classes: the class index to explain for each image.

    Returns:
        float32 [n, h, w] in 0..1, where 1 is the strongest evidence in an image (all 0 without
        evidence for the class); None for a model without feature maps.
    """
    point = explained_layer(model)
    if point is None:
        return None
    # Split at the map, so that the gradient of the top with respect to the map can be computed.
    # The levels below the map have no gradient with respect to it.
    constant = [level for level in _levels(model)
                if all(tensor is not point.tensor for tensor in topological_order(level))
                ]  # fmt: skip
    bottom = keras.Model(model.input, [point.tensor, *constant])
    top = keras.Model([point.tensor, *constant], model.output)
    computed = bottom(inputs, training=False)
    # Keras returns the only output of a list as a tensor.
    features, *others = computed if constant else [computed]
    features = tf.cast(features, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(features)
        logits = top([features, *others], training=False)
        explained = tf.gather(logits, tf.constant(list(classes), tf.int32), axis=1, batch_dims=1)
    gradient = tape.gradient(explained, features)
    weights = tf.reduce_mean(gradient, axis=(1, 2), keepdims=True)
    maps = tf.nn.relu(tf.reduce_sum(weights * features, axis=3)).numpy()
    rows, columns = _grid(*maps.shape[1:])
    if maps.shape[1] == 1:  # without the tokens before the patches
        maps = maps[:, 0, maps.shape[2] - rows * columns :].reshape(-1, rows, columns)
    highest = maps.max(axis=(1, 2), keepdims=True)
    scaled = np.divide(maps, highest, out=np.zeros_like(maps), where=highest > 0)
    return np.nan_to_num(scaled.astype(np.float32))
