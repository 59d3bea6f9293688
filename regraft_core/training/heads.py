"""Heads: the layers from a backbone's feature map to logits."""

from __future__ import annotations

import keras
import numpy as np
from numpy.typing import NDArray

from regraft_core.formats.options import HeadKind, HeadOptions

# Channels whose variance is below this quantile are scaled alike: enlarged, their noise would count
# as much as the channels that separate the classes. If most channels are constant, a fraction of
# the mean variance replaces the quantile.
VARYING_QUANTILE, VARIANCE_FLOOR = 0.75, 1e-2
EPSILON = 1e-3


def pooling_layer(kind: HeadKind) -> keras.layers.Layer:
    """Return the layer from a feature map [n, h, w, c] to a head's input [n, width]."""
    layers = {
        "gap": keras.layers.GlobalAveragePooling2D,
        "gmp": keras.layers.GlobalMaxPooling2D,
        "flatten": keras.layers.Flatten,
    }
    return layers[kind](name=f"head_{kind}")


def pooled_width(kind: HeadKind, feature_map: tuple[int, int, int]) -> int:
    """Return the width of a head's input for feature maps of shape (h, w, c)."""
    height, width, channels = feature_map
    return height * width * channels if kind == "flatten" else channels


def build_head(width: int, classes: int, options: HeadOptions) -> keras.Model:
    """Build a head: pooled features float32 [n, width] to logits [n, classes].

    Its first layer standardizes the features by statistics that are set once (see
    `standardize`) and never trained, so that one learning rate fits every backbone.
    """
    penalty = keras.regularizers.L2(options.l2) if options.l2 else None
    initializer = keras.initializers.GlorotUniform(seed=options.seed)
    tensor = inputs = keras.Input((width,), name="pooled")
    tensor = keras.layers.BatchNormalization(
        center=False, scale=False, trainable=False, name="head_standardize"
    )(tensor)
    if options.dense_width:
        tensor = keras.layers.Dense(
            options.dense_width,
            activation="relu",
            kernel_regularizer=penalty,
            kernel_initializer=keras.initializers.HeNormal(seed=options.seed),
            name="head_dense",
        )(tensor)
    if options.dropout:
        tensor = keras.layers.Dropout(options.dropout, seed=options.seed, name="head_dropout")(
            tensor
        )
    logits = keras.layers.Dense(
        classes,
        dtype="float32",
        kernel_regularizer=penalty,
        kernel_initializer=initializer,
        name="logits",
    )(tensor)
    return keras.Model(inputs, logits, name="head")


def standardize(
    head: keras.Model, mean: NDArray[np.float32], variance: NDArray[np.float32]
) -> None:
    """Set a head's first layer from the features' mean and variance, [width] each.

    Variances below a floor are raised to it. The floor is the layer's epsilon, so it is kept when
    training updates the statistics.
    """
    floor = max(np.quantile(variance, VARYING_QUANTILE), VARIANCE_FLOOR * variance.mean())
    layer = head.get_layer("head_standardize")
    layer.epsilon = float(floor) + EPSILON
    layer.set_weights([mean, np.maximum(variance - floor, 0.0)])


def head_parameters(
    feature_map: tuple[int, int, int], classes: int, dense_width: int
) -> dict[str, int]:
    """Return the trainable parameters of a head by pooling, for feature maps of shape (h, w, c)."""

    def count(width: int) -> int:
        hidden = dense_width or width
        inner = (width + 1) * dense_width if dense_width else 0
        return inner + (hidden + 1) * classes

    kinds: tuple[HeadKind, ...] = ("gap", "gmp", "flatten")
    return {kind: count(pooled_width(kind, feature_map)) for kind in kinds}
