"""The head step: trains the head on cached features (feature extraction)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, get_args

import keras
import numpy as np
from numpy.typing import NDArray

from components.train_head.head_search import Trial, search_heads
from regraft_core.backbones.backbone_table import find_backbone
from regraft_core.formats.manifest_storage import MadeBy, digest_of, staged_folder
from regraft_core.formats.manifests import Epoch, FeaturesManifest, ModelManifest, Preprocessing
from regraft_core.formats.options import MACHINE_OPTIONS, HeadKind, HeadOptions
from regraft_core.runtime.errors import DataError, InputError
from regraft_core.runtime.gpu_setup import GpuSetup, set_up_gpus
from regraft_core.runtime.out_of_memory import explain_out_of_memory, with_halved_batches
from regraft_core.runtime.step_reports import Clock
from regraft_core.runtime.version import VERSION
from regraft_core.training.checkpoint import checkpoint_folder
from regraft_core.training.feature_store import FeatureRows, feature_source, moments, read_manifests
from regraft_core.training.heads import build_head, head_parameters, standardize
from regraft_core.training.learning_curves import write_curves
from regraft_core.training.loop import Settings, class_weights, train
from regraft_core.training.model_files import count_parameters, save_model


@explain_out_of_memory()
def train_head(
    features: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    options: HeadOptions,
) -> ModelManifest:
    """Train a head on the pooled features of all workers.

    Raises:
        InputError: the features are incomplete, or lack the requested pooling.
        DataError: there is no training or no validation image.
        RegraftError: the loss is not finite, or the memory is exhausted.
    """
    clock = Clock()
    set_up_gpus(GpuSetup.of(options))
    manifest = read_manifests(features)[0]
    measurements: dict[str, Any] = {}
    reasoning: list[str] = []
    if options.head_search:
        options, measurements, reasoning = _search(features, manifest, options)
    if options.pooling not in manifest.arrays:
        arrays = ", ".join(manifest.arrays)
        raise InputError(f"expected features of pooling {options.pooling!r}, got {arrays}")
    rows = FeatureRows(features, "train", options.pooling, manifest.views)
    validation = FeatureRows(features, "validation", options.pooling)
    if not len(rows) or not len(validation):
        raise DataError(
            f"expected images in train and validation, got {len(rows)} and {len(validation)}"
        )
    head, history, options = _train(manifest, rows, validation, options)
    best = min(history, key=lambda epoch: epoch.validation_loss)
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
            head=options.model_dump(include={"pooling", "dense_width", "dropout", "l2"}),
            options=options.model_dump(),
            parameters=count_parameters(head),
            head_parameters=head_parameters(
                (height, width, channels), len(manifest.classes), options.dense_width
            ),
            history=history,
            validation_accuracy=best.validation_accuracy,
            validation_loss=best.validation_loss,
            reasoning=reasoning,
            measurements=measurements,
        )
        written.write(folder)
    return written


def _train(
    manifest: FeaturesManifest, rows: FeatureRows, validation: FeatureRows, options: HeadOptions
) -> tuple[keras.Model, list[Epoch], HeadOptions]:
    """Train a head; return it, its history, and the options as used: the memory limits batches."""

    def run(batch_size: int) -> tuple[keras.Model, list[Epoch], HeadOptions]:
        used = options.model_copy(update={"batch_size": batch_size})
        keras.utils.set_random_seed(used.seed)
        head = build_head(manifest.arrays[used.pooling][0], len(manifest.classes), used)
        standardize(head, *moments(rows))
        settings = _settings(manifest, rows.labels, used)
        checkpoint = checkpoint_folder(used.work_dir, "train_head", settings.fingerprint)
        sources = feature_source(rows), feature_source(validation)
        return head, train(head, *sources, settings, checkpoint), used

    return with_halved_batches("train_head", options.batch_size, run)[0]


def _search(
    features: Sequence[str | os.PathLike[str]], manifest: FeaturesManifest, options: HeadOptions
) -> tuple[HeadOptions, dict[str, Any], list[str]]:
    """Return the best head's options, and measurements and reasoning for the manifest."""
    kinds = [kind for kind in get_args(HeadKind) if kind in manifest.arrays]
    labels = FeatureRows(features, "train", kinds[0]).labels
    classes = len(manifest.classes)
    weights = class_weights(options.class_weights, labels, classes)

    def run(batch_size: int) -> tuple[HeadOptions, list[Trial]]:
        sized = options.model_copy(update={"batch_size": batch_size})
        return search_heads(features, manifest, sized, weights or (1.0,) * classes)

    (best, trials), _ = with_halved_batches("head search", options.batch_size, run)
    poolings = sorted({trial.options.pooling for trial in trials}, key=kinds.index)
    sentence = (
        f"Of {len(trials)} heads ({', '.join(poolings)}; several widths, dropouts and learning "
        f"rates), {best.pooling} with width {best.dense_width}, dropout {best.dropout:g} and "
        f"learning rate {best.head_learning_rate:g} had the lowest validation loss."
    )
    return best, {"head_search": [trial.measurements() for trial in trials]}, [sentence]


def _settings(
    manifest: FeaturesManifest, labels: NDArray[np.int32], options: HeadOptions
) -> Settings:
    classes = len(manifest.classes)
    return Settings(
        phase="head",
        epochs=options.head_epochs,
        batch_size=options.batch_size,
        learning_rate=options.head_learning_rate,
        seed=options.seed,
        classes=classes,
        patience=options.patience,
        label_smoothing=options.label_smoothing,
        class_weights=class_weights(options.class_weights, labels, classes),
        fingerprint=digest_of([manifest.digest, options.model_dump(exclude={*MACHINE_OPTIONS})]),
    )
