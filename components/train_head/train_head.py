"""The head, trained on cached features: feature-extraction training."""

from __future__ import annotations

import os
from collections.abc import Sequence

import keras
import numpy as np
from numpy.typing import NDArray

from components.core.artifacts import (
    FeaturesManifest,
    MadeBy,
    ModelManifest,
    Preprocessing,
    digest_of,
    staged_folder,
)
from components.core.backbones import find_backbone
from components.core.checkpoint import checkpoint_folder
from components.core.errors import DataError, InputError
from components.core.feature_store import FeatureRows, feature_source, read_manifests
from components.core.learning_curves import write_curves
from components.core.models import (
    build_head,
    count_parameters,
    head_parameters,
    save_model,
    standardise,
)
from components.core.options import HeadOptions
from components.core.step import Clock
from components.core.training import Settings, train
from components.core.version import VERSION


def train_head(
    features: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    options: HeadOptions,
) -> ModelManifest:
    """Train a head on the pooled features of all workers.

    Raises:
        InputError: the features are incomplete, or hold no pooling of the wanted kind.
        DataError: there is no validation picture to choose by.
        RegraftError: the loss is not a number.
    """
    clock = Clock()
    manifest = read_manifests(features)[0]
    if options.head not in manifest.arrays:
        held = ", ".join(manifest.arrays)
        raise InputError(f"expected features of pooling {options.head!r}, got {held}")
    rows = FeatureRows(features, "train", options.head, manifest.views)
    validation = FeatureRows(features, "validation", options.head)
    if not len(rows) or not len(validation):
        raise DataError(
            f"expected pictures in train and validation, got {len(rows)} and {len(validation)}"
        )
    keras.utils.set_random_seed(options.seed)
    head = build_head(manifest.arrays[options.head][0], len(manifest.classes), options)
    standardise(head, *_moments(rows))
    settings = _settings(manifest, rows.labels, options)
    checkpoint = checkpoint_folder(options.work_dir, "train_head", settings.fingerprint)
    history = train(head, feature_source(rows), feature_source(validation), settings, checkpoint)
    best = min(history, key=lambda line: line.validation_loss)
    height, width, channels = manifest.feature_map
    with staged_folder(out) as folder:
        write_curves(history, folder)
        written = ModelManifest(
            digest=save_model(head, folder),
            made_by=MadeBy(step="train_head", version=VERSION, seconds=clock.seconds),
            kind="head",
            strategy="head",
            requested_strategy="head",
            backbone=manifest.backbone,
            weights=manifest.weights,
            weights_digest=manifest.weights_digest,
            preprocessing=Preprocessing(
                image_px=manifest.image_px, scaling=find_backbone(manifest.backbone).scaling
            ),
            classes=manifest.classes,
            dataset_digest=manifest.dataset_digest,
            cut=None,
            head=options.model_dump(include={"head", "dense_width", "dropout", "l2"}),
            options=options.model_dump(),
            parameters=count_parameters(head),
            head_parameters=head_parameters(
                (height, width, channels), len(manifest.classes), options.dense_width
            ),
            history=history,
            validation_accuracy=best.validation_accuracy,
            validation_loss=best.validation_loss,
        )
        written.write(folder)
    return written


def _moments(
    rows: FeatureRows, block: int = 4096
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return mean and variance of each feature over the plain view, block by block."""
    total = np.zeros(rows.row_shape, np.float64)
    squares = np.zeros(rows.row_shape, np.float64)
    for first in range(0, len(rows), block):
        values = rows.rows(np.arange(first, min(first + block, len(rows)))).astype(np.float64)
        total += values.sum(axis=0)
        squares += np.square(values).sum(axis=0)
    mean = total / len(rows)
    variance = np.maximum(squares / len(rows) - np.square(mean), 0.0)
    return mean.astype(np.float32), variance.astype(np.float32)


def balanced_weights(labels: NDArray[np.int32], classes: int) -> tuple[float, ...]:
    """Return a weight a class, so that each class weighs the same: n / (classes * n_class)."""
    counts = np.maximum(np.bincount(labels, minlength=classes), 1)
    return tuple((len(labels) / (classes * counts)).tolist())


def _settings(
    manifest: FeaturesManifest, labels: NDArray[np.int32], options: HeadOptions
) -> Settings:
    balanced = options.class_weights == "balanced"
    return Settings(
        phase="head",
        epochs=options.head_epochs,
        batch_size=options.batch_size,
        learning_rate=options.head_learning_rate,
        seed=options.seed,
        classes=len(manifest.classes),
        patience=options.patience,
        label_smoothing=options.label_smoothing,
        class_weights=balanced_weights(labels, len(manifest.classes)) if balanced else None,
        fingerprint=digest_of([manifest.digest, options.model_dump(exclude={"work_dir"})]),
    )
