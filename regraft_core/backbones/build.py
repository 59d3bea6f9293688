"""Builds a backbone of the table with the requested weights, as a Keras model."""

from __future__ import annotations

import hashlib
import importlib
import random
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from regraft_core.backbones.table import KERAS, Backbone, find_backbone
from regraft_core.backbones.weights import load_weights_file, pretrained
from regraft_core.runtime.errors import InputError

RANDOM_SEED = 0


def build_backbone(
    backbone: str | Backbone, image_px: int = 0, weights: str = "imagenet", *, seed: int = 0
) -> Any:
    """Build a backbone without its classifier, as a functional `keras.Model`.

    Args:
        backbone: a row of the table, or its name.
        image_px: side of the square input; 0 is the backbone's own.
        weights: "imagenet" for the row's pretrained weights, "random" for an initialization from
            `seed`, or a file that `backbone_weights.load_weights_file` reads.
        seed: of "random".

    Returns:
        A model from the scaled images float32 `[n, image_px, image_px, 3]` to the last feature
        map float32 `[n, h, w, width]`. Its layer names do not depend on what else was built in the
        process.

    Raises:
        InputError: unknown name, too small an image, or weights that cannot be had or do not fit.
    """
    row = backbone if isinstance(backbone, Backbone) else find_backbone(backbone)
    image_px = row.side_px(image_px)
    if weights == "imagenet":
        with pretrained(row):
            return _build(row, image_px, RANDOM_SEED, "imagenet")
    model = _build(row, image_px, seed, None)
    if weights != "random":
        load_weights_file(row, model, weights)
    return model


def build_classifier(backbone: str | Backbone, weights: str = "imagenet") -> Any:
    """Build a pretrained model with its ImageNet top, at its own image size.

    Args:
        backbone: a row of the table, or its name.
        weights: "imagenet", or a file with the weights of the whole model, as `build_backbone`.

    Returns:
        A model from the scaled images float32 `[n, px, px, 3]` to logits float32 `[n, 1000]`.

    Raises:
        InputError: unknown name, a backbone without a top, or weights that cannot be had or do
            not fit.
    """
    row = backbone if isinstance(backbone, Backbone) else find_backbone(backbone)
    if not row.has_top:
        raise InputError(f"expected a backbone with an ImageNet top, {row.name} has none")
    if weights == "imagenet":
        with pretrained(row, top=True):
            return _build(row, row.image_px, RANDOM_SEED, "imagenet", top=True)
    model = _build(row, row.image_px, RANDOM_SEED, None, top=True)
    load_weights_file(row, model, weights, top=True)
    return model


def weights_digest(model: Any) -> str:
    """Return the SHA-256 (hex) of the places, shapes, dtypes and bytes of all variables.

    A place is the layer's name and a number: names of variables depend on what else was built.
    """
    import numpy as np

    digest = hashlib.sha256()
    for layer in _leaves(model):
        for place, variable in enumerate(layer.weights):
            values = np.ascontiguousarray(variable.numpy())
            head = f"{layer.name}/{place} {values.dtype} {list(values.shape)}\n"
            digest.update(head.encode())
            digest.update(values.tobytes())
    return digest.hexdigest()


def _build(
    row: Backbone, image_px: int, seed: int, weights: str | None, *, top: bool = False
) -> Any:
    """Build the model; what is not loaded comes from `seed`, Python's random state stays."""
    constructor = getattr(importlib.import_module(row.imported_from), row.constructor)
    # Keras' models end in a softmax unless told otherwise; ours end in logits.
    options = {"classifier_activation": None} if top and row.weights_from == KERAS else {}
    state = random.getstate()
    random.seed(seed)  # Keras draws the seeds of its initializers from it.
    try:
        model = constructor(
            include_top=top, weights=weights, input_shape=(image_px, image_px, 3), **options
        )
    finally:
        random.setstate(state)
    _name_by_position(model)
    return model


def _leaves(model: Any) -> Iterator[Any]:
    """Yield the layers of a model in order, those inside nested models in their place."""
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from _leaves(layer)
        else:
            yield layer


def _name_by_position(model: Any) -> None:
    """Number the automatic names of layers and operations from zero within the model.

    Keras numbers them by all that the process built before, so `add_10` of one process would be
    `add_46` of another, and a cut by name would not hold.
    """
    counts: Counter[str] = Counter()
    for operation in model.operations:
        kind = re.sub(r"(_\d+)$", "", operation.name)
        if kind == _automatic_name(operation):
            operation.name = f"{kind}_{counts[kind]}" if counts[kind] else kind
            counts[kind] += 1


def _automatic_name(operation: Any) -> str:
    """Return the name that Keras gives the first layer or operation of this class."""
    edge = r"(?<=.)(?=[A-Z][a-z])|(?<=[a-z])(?=[A-Z])"
    return re.sub(edge, "_", type(operation).__name__).lower()
