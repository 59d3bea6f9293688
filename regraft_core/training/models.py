"""Heads, and models on disk: `model.keras` beside its manifest `model.json`.

Models give logits. A head works on pooled features; a complete candidate on a backbone's input.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import cast

import keras
import numpy as np
from numpy.typing import NDArray

from regraft_core.formats.manifest_storage import digest_file
from regraft_core.formats.manifests import ModelManifest, Parameters
from regraft_core.formats.options import HeadKind, HeadOptions
from regraft_core.runtime.errors import InputError

MODEL_FILE = "model.keras"
# This share of the channels, those that vary least, are scaled alike: blown up, their noise would
# weigh as much as what tells classes apart. Where most channels are dead, a share of the mean
# variance takes its place.
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
    `standardize`) and never trained, which lets one learning rate fit every backbone.
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
    """Set a head's first layer by the features' mean and variance, [width] each.

    The variance of most channels is raised to that of the more varying ones. The layer adds the
    floor itself, so that it stays where the statistics follow new images.
    """
    floor = max(np.quantile(variance, VARYING_QUANTILE), VARIANCE_FLOOR * variance.mean())
    layer = head.get_layer("head_standardize")
    layer.epsilon = float(floor) + EPSILON
    layer.set_weights([mean, np.maximum(variance - floor, 0.0)])


def head_parameters(
    feature_map: tuple[int, int, int], classes: int, dense_width: int
) -> dict[str, int]:
    """Return the trainable parameters of a head of each kind on feature maps of shape (h, w, c)."""

    def count(width: int) -> int:
        hidden = dense_width or width
        inner = (width + 1) * dense_width if dense_width else 0
        return inner + (hidden + 1) * classes

    kinds: tuple[HeadKind, ...] = ("gap", "gmp", "flatten")
    return {kind: count(pooled_width(kind, feature_map)) for kind in kinds}


def count_parameters(model: keras.Model) -> Parameters:
    """Return the numbers of weights of `model` by what training may change."""
    total = sum(int(np.prod(v.shape)) for v in model.weights)
    trainable = sum(int(np.prod(v.shape)) for v in model.trainable_weights)
    return Parameters(total=total, trainable=trainable, frozen=total - trainable)


def save_model(model: keras.Model, folder: str | os.PathLike[str]) -> str:
    """Write `model.keras` into `folder`, without optimizer state; return its SHA-256."""
    path = Path(folder) / MODEL_FILE
    model.save(path, include_optimizer=False)
    return digest_file(path)


def load_model(folder: str | os.PathLike[str]) -> tuple[keras.Model, ModelManifest]:
    """Load the model of `folder`; no code can hide in it (safe mode, no pickles).

    Raises:
        InputError: a file is missing, or `model.keras` is not the one that the manifest names.
    """
    manifest = ModelManifest.read(folder)
    path = Path(folder) / MODEL_FILE
    if not path.is_file():
        raise InputError(f"expected {MODEL_FILE} in {folder}, found none")
    digest = digest_file(path)
    if digest != manifest.digest:
        raise InputError(f"{path}: expected digest {manifest.digest[:12]}, got {digest[:12]}")
    return read_keras_file(path), manifest


def read_keras_file(path: str | os.PathLike[str]) -> keras.Model:
    """Load a `.keras` file; code of its own is refused, not run (safe mode, no pickles).

    Raises:
        InputError: it is missing, damaged, or needs code that Keras does not have.
    """
    path = Path(path)
    if path.suffix != ".keras":
        raise InputError(f"expected a .keras file, got {path}")
    if not path.is_file():
        raise InputError(f"expected a .keras file at {path}, found none")
    try:
        return cast(keras.Model, keras.models.load_model(path, compile=False, safe_mode=True))
    except Exception as error:
        # zipfile, h5py and Keras raise what they like for a file that is no sound model.
        cause = " ".join(str(error).split()).split(". ")[0][:200]
        raise InputError(
            f"{path}: expected a sound Keras model without code of its own: {cause}"
        ) from error
