"""Where the evidence for an answer lies: Grad-CAM at the last cut point (Selvaraju et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from regraft_core.backbones.cuts import CutPoint, cut_points

# A map of fewer positions a side says nothing about a place in the image.
FEWEST_POSITIONS = 4


def explained_layer(model: keras.Model) -> CutPoint | None:
    """Return the last cut point that gives a feature map [n, h, w, c], None without any.

    Cut points hold for every backbone, as all evidence goes through them. Of small images, whose
    last map has hardly any positions, the last map of at least 4 x 4 is taken.
    """
    maps = [point for point in cut_points(model)[1:] if len(point.tensor.shape) == 4]
    fine = [point for point in maps if min(point.tensor.shape[1:3]) >= FEWEST_POSITIONS]
    return fine[-1] if fine else maps[-1] if maps else None


def heat_maps(
    model: keras.Model, inputs: Any, classes: Sequence[int]
) -> NDArray[np.float32] | None:
    """Return what speaks for the given class in each image.

    Args:
        model: a complete candidate, giving logits.
        inputs: the backbone's input, float32 [n, px, px, 3].
        classes: the class index to explain for each image.

    Returns:
        float32 [n, h, w] in 0..1, where 1 is the strongest evidence of its image (all 0 where
        nothing speaks for the class); None for a model without feature maps.
    """
    point = explained_layer(model)
    if point is None:
        return None
    # Cut open, so that the map is a variable of its own and not only an output on the side.
    bottom = keras.Model(model.input, point.tensor)
    top = keras.Model(point.tensor, model.output)
    features = tf.cast(bottom(inputs, training=False), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(features)
        logits = top(features, training=False)
        explained = tf.gather(logits, tf.constant(list(classes), tf.int32), axis=1, batch_dims=1)
    gradient = tape.gradient(explained, features)
    weights = tf.reduce_mean(gradient, axis=(1, 2), keepdims=True)
    maps = tf.nn.relu(tf.reduce_sum(weights * features, axis=3)).numpy()
    highest = maps.max(axis=(1, 2), keepdims=True)
    scaled = np.divide(maps, highest, out=np.zeros_like(maps), where=highest > 0)
    return np.nan_to_num(scaled.astype(np.float32))
