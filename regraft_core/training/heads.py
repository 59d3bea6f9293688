"""Heads: the layers from a backbone's feature map to logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import keras
import numpy as np
from numpy.typing import NDArray

from regraft_core.backbones.cuts import block_ends
from regraft_core.formats.manifests.features import Level
from regraft_core.formats.options.option_types import HeadKind

# Channels whose variance is below this quantile are scaled alike: enlarged, their noise would count
# as much as the channels that separate the classes. If most channels are constant, a fraction of
# the mean variance replaces the quantile.
VARYING_QUANTILE, VARIANCE_FLOOR = 0.75, 1e-2
EPSILON = 1e-3
LEVELS_LAYER = "head_levels"
LOGITS_LAYER = "logits"


def pooling_layer(kind: HeadKind) -> keras.layers.Layer:
    """Return the layer from a feature map [n, h, w, c] to a head's input [n, width]."""
    layers = {
        "gap": keras.layers.GlobalAveragePooling2D,
        "gmp": keras.layers.GlobalMaxPooling2D,
        "flatten": keras.layers.Flatten,
    }
    return layers[kind](name=f"head_{kind}")


def level_layer(level: Level) -> keras.layers.Layer:
    """Return the layer from a level's feature map [n, h, w, c] to its features [n, c]."""
    kinds = {
        "average": keras.layers.GlobalAveragePooling2D,
        "maximum": keras.layers.GlobalMaxPooling2D,
    }
    return kinds[level.pooling](name=f"head_{level.pooling}_{level.layer}")


def all_levels(backbone: keras.Model) -> list[Level]:
    """Return the levels of a backbone: the averages of all blocks' ends, then their maxima."""
    kinds: tuple[Literal["average", "maximum"], ...] = ("average", "maximum")
    return [
        Level(layer=end.name, pooling=kind, width=end.tensor.shape[-1])
        for kind in kinds
        for end in block_ends(backbone)
    ]


def pooled_levels(backbone: keras.Model, levels: Sequence[Level]) -> Any:
    """Return the tensor of the features of some levels, one after another, [n, width]."""
    pooled = [level_layer(level)(backbone.get_layer(level.layer).output) for level in levels]
    if len(pooled) == 1:
        return keras.layers.Identity(name=LEVELS_LAYER)(pooled[0])
    return keras.layers.Concatenate(name=LEVELS_LAYER)(pooled)


def features_layer(head: Mapping[str, Any]) -> str:
    """Return the name of the layer whose output is a head's input; `head` is as in its manifest."""
    return LEVELS_LAYER if head.get("levels") else f"head_{head['pooling']}"


def pooled_width(kind: HeadKind, feature_map: tuple[int, int, int]) -> int:
    """Return the width of a head's input for feature maps of shape (h, w, c)."""
    height, width, channels = feature_map
    return height * width * channels if kind == "flatten" else channels


def build_head(width: int, classes: int, seed: int = 0) -> keras.Model:
    """Build a head: pooled features float32 [n, width] to logits [n, classes].

    Its first layer standardizes the features by statistics that are set once (see
    `standardize`) and never trained, so that one learning rate fits every backbone.
    """
    inputs = keras.Input((width,), name="pooled")
    tensor = keras.layers.BatchNormalization(
        center=False, scale=False, trainable=False, name="head_standardize"
    )(inputs)
    logits = keras.layers.Dense(
        classes,
        dtype="float32",
        kernel_initializer=keras.initializers.GlorotUniform(seed=seed),
        name=LOGITS_LAYER,
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


def set_logits(head: keras.Model, kernel: NDArray[np.float64], bias: NDArray[np.float64]) -> None:
    """Set the weights of a standardized head: `features @ kernel + bias` are its logits."""
    layer = head.get_layer("head_standardize")
    mean, variance = (weights.astype(np.float64) for weights in layer.get_weights())
    scaled = kernel * np.sqrt(variance + layer.epsilon)[:, None]
    head.get_layer(LOGITS_LAYER).set_weights([scaled, bias + mean @ kernel])


def add_offset(logits: keras.layers.Layer, offset: NDArray[np.floating]) -> None:
    """Add an offset [classes] to the bias of the layer of the logits."""
    logits.bias.assign(logits.bias.numpy() + offset)


def head_parameters(feature_map: tuple[int, int, int], classes: int) -> dict[str, int]:
    """Return the trainable parameters of a head by pooling, for feature maps of shape (h, w, c)."""
    kinds: tuple[HeadKind, ...] = ("gap", "gmp", "flatten")
    return {kind: (pooled_width(kind, feature_map) + 1) * classes for kind in kinds}
