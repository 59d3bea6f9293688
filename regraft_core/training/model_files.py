"""Models on disk: `model.keras` next to its manifest `model.json`; models return logits."""

from __future__ import annotations

import os
from pathlib import Path
from typing import cast

import keras
import numpy as np

from regraft_core.backbones import frozen_graph, network_layers
from regraft_core.formats.manifest_storage import digest_file
from regraft_core.formats.manifests.model import ModelManifest, Parameters
from regraft_core.formats.stored_artifacts import content_file
from regraft_core.runtime.errors import InputError

MODEL_FILE = "model.keras"
# Their layers are read by name, so they must be known.
_LAYERS = (frozen_graph.FrozenGraph, network_layers.HubPart, network_layers.PatchTokens)


def count_parameters(model: keras.Model) -> Parameters:
    """Return the numbers of parameters of `model`, in total, trainable and frozen."""
    total = sum(int(np.prod(v.shape)) for v in model.weights)
    trainable = sum(int(np.prod(v.shape)) for v in model.trainable_weights)
    return Parameters(total=total, trainable=trainable, frozen=total - trainable)


def save_model(model: keras.Model, folder: str | os.PathLike[str]) -> str:
    """Write `model.keras` into `folder`, without optimizer state; return its SHA-256."""
    path = Path(folder) / MODEL_FILE
    model.save(path, include_optimizer=False)
    return digest_file(path)


def load_model(folder: str | os.PathLike[str]) -> tuple[keras.Model, ModelManifest]:
    """Load the model of `folder`, in safe mode: it cannot run code of its own.

    Raises:
        InputError: a file is missing, or `model.keras` does not match the manifest.
    """
    manifest = ModelManifest.read(folder)
    path = content_file(folder, MODEL_FILE)
    if not path.is_file():
        raise InputError(f"expected {MODEL_FILE} in {folder}, found none")
    digest = digest_file(path)
    if digest != manifest.digest:
        raise InputError(f"{path}: expected digest {manifest.digest[:12]}, got {digest[:12]}")
    return read_keras_file(path), manifest


def read_keras_file(path: str | os.PathLike[str]) -> keras.Model:
    """Load a `.keras` file, in safe mode: it cannot run code of its own.

    Raises:
        InputError: it is missing, damaged, or needs code that Keras does not contain.
    """
    path = Path(path)
    if path.suffix != ".keras":
        raise InputError(f"expected a .keras file, got {path}")
    if not path.is_file():
        raise InputError(f"expected a .keras file at {path}, found none")
    try:
        layers = {f"{network_layers.PACKAGE}>{layer.__name__}": layer for layer in _LAYERS}
        return cast(
            keras.Model,
            keras.models.load_model(path, custom_objects=layers, compile=False, safe_mode=True),
        )
    except InputError:
        raise
    except Exception as error:
        # zipfile, h5py and Keras raise many kinds of errors for an invalid file.
        cause = " ".join(str(error).split()).split(". ")[0][:200]
        raise InputError(
            f"{path}: expected a valid Keras model without code of its own: {cause}"
        ) from error
