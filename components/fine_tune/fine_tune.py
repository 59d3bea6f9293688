"""From a head to a complete candidate, by one of the three strategies of transfer learning.

`head` trains nothing more; `top` trains the layers above the cut from cached activations; `full`
trains everything from pictures.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from components.core.artifacts import (
    Epoch,
    FeaturesManifest,
    MadeBy,
    ModelManifest,
    digest_of,
    staged_folder,
)
from components.core.backbones import build_backbone, find_backbone, weights_digest
from components.core.errors import InputError
from components.core.feature_store import FeatureRows, feature_source, read_manifests
from components.core.models import count_parameters, load_model, pooling_layer, save_model
from components.core.options import FineTuneOptions
from components.core.pictures import PictureRows, picture_source
from components.core.step import Clock, say
from components.core.surgery import freeze, join, split
from components.core.training import Settings, train
from components.core.version import VERSION

# With `adapt`, a moving average forgets what it started from about this many times over.
ADAPT_TURNOVERS = 8


@dataclass(frozen=True)
class Parts:
    """What fine-tuning starts from: the backbone, the trained head's layers, and their facts."""

    backbone: keras.Model
    head_layers: list[keras.layers.Layer]
    head: ModelManifest
    features: FeaturesManifest


def fine_tune(
    dataset: str | os.PathLike[str],
    features: Sequence[str | os.PathLike[str]],
    head: str | os.PathLike[str],
    out: str | os.PathLike[str],
    options: FineTuneOptions,
    checkpoint: Path | None = None,
) -> ModelManifest:
    """Make a complete candidate (backbone's input to logits) by one strategy.

    Raises:
        InputError: the head is of another dataset or other weights, or no cut was cached.
        RegraftError: the loss is not a number.
    """
    clock = Clock()
    keras.utils.set_random_seed(options.seed)
    parts = _load_parts(features, head)
    strategy = "top" if options.strategy == "auto" else options.strategy
    freeze(parts.backbone)
    complete = join(parts.backbone, parts.head_layers)
    history: list[Epoch] = []
    if strategy == "top":
        history = _train_top(parts, features, options, checkpoint)
    elif strategy == "full":
        history = _train_full(parts, complete, dataset, options, checkpoint)
    loss, accuracy = _best(parts.head, history)
    trained = {"head": "head", "top": parts.features.cut, "full": "all"}[strategy]
    say(f"fine_tune {strategy}: validation accuracy {accuracy:.4f}, trained from {trained}")
    with staged_folder(out) as folder:
        written = parts.head.model_copy(
            update={
                "digest": save_model(complete, folder),
                "made_by": MadeBy(step="fine_tune", version=VERSION, seconds=clock.seconds),
                "kind": "candidate",
                "strategy": strategy,
                "requested_strategy": options.strategy,
                "cut": parts.features.cut if strategy == "top" else None,
                "options": options.model_dump(),
                "parameters": count_parameters(complete),
                "history": parts.head.history + history,
                "validation_accuracy": accuracy,
                "validation_loss": loss,
            }
        )
        written.write(folder)
    return written


def _load_parts(features: Sequence[str | os.PathLike[str]], head: str | os.PathLike[str]) -> Parts:
    extracted = read_manifests(features)[0]
    head_model, manifest = load_model(head)
    if manifest.kind != "head":
        raise InputError(f"expected a head in {head}, got a {manifest.kind}")
    if manifest.dataset_digest != extracted.dataset_digest:
        raise InputError("the head was trained on another dataset than the features are of")
    image_px = manifest.preprocessing.image_px
    backbone = build_backbone(find_backbone(manifest.backbone), image_px, manifest.weights)
    digest = weights_digest(backbone)
    if digest != manifest.weights_digest:
        raise InputError(
            f"expected backbone weights {manifest.weights_digest[:12]}, got {digest[:12]}"
        )
    layers = [pooling_layer(manifest.head["head"]), *head_model.layers[1:]]
    return Parts(backbone, layers, manifest, extracted)


def _best(head: ModelManifest, history: list[Epoch]) -> tuple[float, float]:
    """Return loss and accuracy on validation of the weights that were kept.

    Training starts from the head's result and keeps the best, so a worse one never replaces it.
    """
    start = (head.validation_loss, head.validation_accuracy)
    return min([start, *((line.validation_loss, line.validation_accuracy) for line in history)])


def _train_top(
    parts: Parts,
    features: Sequence[str | os.PathLike[str]],
    options: FineTuneOptions,
    checkpoint: Path | None,
) -> list[Epoch]:
    """Train the layers above the cut, and the head, from cached activations."""
    cut = parts.features.cut
    if cut is None:
        raise InputError("strategy top: expected features with activations at a cut, got none")
    _, top = split(parts.backbone, cut)
    rows = FeatureRows(features, "train", "cut", parts.features.views)
    validation = FeatureRows(features, "validation", "cut")
    settings = _settings(parts, "top", options, len(rows))
    _unfreeze(top, parts, options, len(rows))
    model = join(top, parts.head_layers)
    return train(
        model, feature_source(rows), feature_source(validation), settings, checkpoint,
        start_loss=parts.head.validation_loss,
    )  # fmt: skip


def _train_full(
    parts: Parts,
    complete: keras.Model,
    dataset: str | os.PathLike[str],
    options: FineTuneOptions,
    checkpoint: Path | None,
) -> list[Epoch]:
    """Train the backbone and the head from pictures."""
    shape = parts.head.preprocessing
    rows, validation = PictureRows(dataset, "train"), PictureRows(dataset, "validation")
    settings = _settings(parts, "full", options, len(rows))
    _unfreeze(parts.backbone, parts, options, len(rows))
    return train(
        complete,
        picture_source(rows, shape),
        picture_source(validation, shape),
        settings,
        checkpoint,
        start_loss=parts.head.validation_loss,
    )


def _unfreeze(part: keras.Model, parts: Parts, options: FineTuneOptions, count: int) -> None:
    """Make `part` and the head trainable; BatchNormalization stays, or follows the new data.

    The head's own standardisation goes along: where the features change their scale it must too.
    """
    steps = options.fine_tune_epochs * -(-count // options.batch_size)
    for layer in [*part.layers, *parts.head_layers]:
        batch_norm = isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = not batch_norm or options.batch_norm == "adapt"
        if batch_norm and layer.trainable:
            layer.momentum = float(np.clip(1.0 - ADAPT_TURNOVERS / steps, 0.5, 0.99))


def _settings(parts: Parts, phase: str, options: FineTuneOptions, count: int) -> Settings:
    return Settings(
        phase=phase,
        epochs=options.fine_tune_epochs,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        seed=options.seed,
        classes=len(parts.head.classes),
        warm_up_share=0.1,
        cosine_decay=True,
        gradient_clip=1.0,
        fingerprint=digest_of(
            [parts.head.digest, parts.features.digest, phase, count, options.model_dump()]
        ),
    )
