"""Builds a backbone of the table with the requested weights, as a Keras model."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import random
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from regraft_core.backbones.backbone_row import KERAS, Backbone
from regraft_core.backbones.backbone_table import find_backbone
from regraft_core.backbones.hub_network import build_preset
from regraft_core.backbones.own_network import build_own
from regraft_core.backbones.weights import load_weights_file, pretrained
from regraft_core.runtime.errors import InputError

RANDOM_SEED = 0


def build_backbone(
    backbone: str | Backbone, image_px: int = 0, weights: str = "imagenet", *, seed: int = 0
) -> Any:
    """Build a backbone without its classification head, as a functional `keras.Model`.

    Args:
        backbone: a row of the table, or its name.
        image_px: side of the square input; 0 uses the backbone's default.
        weights: "imagenet" for the row's pretrained weights, also those of a preset or a file,
            "random" for initial weights from `seed`, or a file that `weights.load_weights_file`
            reads.
        seed: of "random".

    Returns:
        A model from the scaled images float32 `[n, image_px, image_px, 3]` to the last feature
        map float32 `[n, h, w, width]`. Its layer names do not depend on models built before.

    Raises:
        InputError: unknown name, too small an image, or weights that are unavailable or do not
            match.
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
    """Build a pretrained model with its ImageNet classification head, at its default image size.

    Args:
        backbone: a row of the table, or its name.
        weights: "imagenet", or a file with the weights of the whole model, as `build_backbone`.

    Returns:
        A model from the scaled images float32 `[n, px, px, 3]` to logits float32 `[n, 1000]`.

    Raises:
        InputError: unknown name, a backbone without a classification head, or weights that are
            unavailable or do not match.
    """
    row = backbone if isinstance(backbone, Backbone) else find_backbone(backbone)
    if not row.has_top:
        raise InputError(
            f"expected a backbone with an ImageNet classification head, {row.name} has none"
        )
    if weights == "imagenet":
        with pretrained(row, top=True):
            return _build(row, row.image_px, RANDOM_SEED, "imagenet", top=True)
    model = _build(row, row.image_px, RANDOM_SEED, None, top=True)
    load_weights_file(row, model, weights, top=True)
    return model


def weights_digest(model: Any) -> str:
    """Return the SHA-256 (hex) of the positions, shapes, dtypes and bytes of all variables.

    A position is the layer's name and an index, because the names of variables depend on models
    built before.
    """
    import numpy as np

    digest = hashlib.sha256()
    for layer in _leaves(model):
        for index, variable in enumerate(layer.weights):
            values = np.ascontiguousarray(variable.numpy())
            head = f"{layer.name}/{index} {values.dtype} {list(values.shape)}\n"
            digest.update(head.encode())
            digest.update(values.tobytes())
    return digest.hexdigest()


def _build(
    row: Backbone, image_px: int, seed: int, weights: str | None, *, top: bool = False
) -> Any:
    """Build the model; initial weights come from `seed`."""
    if row.source != "table":
        build = build_preset if row.source == "preset" else build_own
        with _seeded(seed):
            return build(row, image_px, load=weights == "imagenet")
    constructor = getattr(importlib.import_module(row.imported_from), row.constructor)
    # The models of Keras end in a softmax by default.
    options = {"classifier_activation": None} if top and row.weights_from == KERAS else {}
    with _seeded(seed):
        model = constructor(
            include_top=top, weights=weights, input_shape=(image_px, image_px, 3), **options
        )
    _name_by_position(model)
    return model


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Let Python's random state, from which Keras draws seeds of initializers, start at `seed`."""
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)


def _leaves(model: Any) -> Iterator[Any]:
    """Yield the layers of a model in order, including those of nested models."""
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from _leaves(layer)
        else:
            yield layer


def _name_by_position(model: Any) -> None:
    """Number the automatic names of layers and operations from zero within the model.

    Keras numbers them across all models of a process, so `add_10` of one process could be `add_46`
    of another, and a cut by name would fail.
    """
    counts: Counter[str] = Counter()
    for operation in model.operations:
        kind = re.sub(r"(_\d+)$", "", operation.name)
        if kind == _automatic_name(operation):
            operation.name = f"{kind}_{counts[kind]}" if counts[kind] else kind
            counts[kind] += 1


def _automatic_name(operation: Any) -> str:
    """Return the default name of Keras for the first layer or operation of this class."""
    edge = r"(?<=.)(?=[A-Z][a-z])|(?<=[a-z])(?=[A-Z])"
    return re.sub(edge, "_", type(operation).__name__).lower()
