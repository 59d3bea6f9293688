"""The head step: fits the head to cached features (feature extraction)."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from components.train_head.explanation import Solved, explain_head
from regraft_core.backbones.backbone_table import find_backbone
from regraft_core.formats.manifest_storage import MadeBy, staged_folder
from regraft_core.formats.manifests.features import BackboneChoice, FeaturesManifest, Level
from regraft_core.formats.manifests.model import Epoch, ModelManifest, Preprocessing
from regraft_core.formats.options.train_head import HeadOptions
from regraft_core.formats.several_labels import check_label_options
from regraft_core.parallel.executor import Executor
from regraft_core.runtime.errors import DataError, InputError
from regraft_core.runtime.gpu_setup import GpuSetup, set_up_gpus
from regraft_core.runtime.out_of_memory import explain_out_of_memory
from regraft_core.runtime.step_reports import Clock, log_progress
from regraft_core.runtime.version import VERSION
from regraft_core.training.feature_store import (
    LEVELS,
    FeatureRows,
    level_columns,
    moments,
    read_manifests,
)
from regraft_core.training.heads import (
    LOGITS_LAYER,
    add_offset,
    build_head,
    head_parameters,
    set_logits,
    standardize,
)
from regraft_core.training.learning_curves import write_curves
from regraft_core.training.linear_head.head_rows import HeadRows, fits_in_memory
from regraft_core.training.linear_head.head_selection import SolvedHead, fit_again, solve_head
from regraft_core.training.linear_head.head_time import HeadTime
from regraft_core.training.linear_head.held_out_scores import log_loss, score
from regraft_core.training.linear_head.linear_classifier import Weights
from regraft_core.training.linear_head.refitted_head import RefittedHead
from regraft_core.training.linear_head.row_blocks import Rows
from regraft_core.training.linear_head.training_sizes import SizeCurve, measure_sizes
from regraft_core.training.loop import class_weights
from regraft_core.training.model_files import count_parameters, save_model
from regraft_core.training.multilabel_head.binary_regressions import binary_losses
from regraft_core.training.multilabel_head.label_selection import (
    choose_label_head,
    fit_label_head_again,
)
from regraft_core.training.ood_detector import (
    OodDetector,
    detector_layers,
    detector_sample,
    fit_ood_detector,
)
from regraft_core.training.stored_part import StoredPart


@explain_out_of_memory()
def train_head(
    features: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    options: HeadOptions,
    executor: Executor | None = None,
) -> ModelManifest:
    """Fit a linear head to the pooled features of all workers, chosen by cross-validation.

    Loss and accuracy in the manifest are those before the offset that serves the objective, so that
    they can be compared with those of fine-tuning, which adds the offset at its end.

    Args:
        features: the folders of all workers.
        out: a folder to make.
        options: of the step.
        executor: its workers compute the sums over rows that `exceeds_memory`, with the same
            result.

    Raises:
        InputError: the features are incomplete, not finite, or lack the requested pooling.
        DataError: there is no training or no validation image.
        RegraftError: the memory is exhausted.
    """
    clock = Clock()
    set_up_gpus(GpuSetup.of(options))
    manifests = read_manifests(features)
    manifest = manifests[0]
    extraction_s = max(one.made_by.seconds for one in manifests)
    time = HeadTime.of_budget(options.budget, extraction_s, clock)
    if options.pooling not in manifest.arrays:
        arrays = ", ".join(manifest.arrays)
        raise InputError(f"expected features of pooling {options.pooling!r}, got {arrays}")
    train = FeatureRows(features, "train", options.pooling, manifest.views)
    validation = FeatureRows(features, "validation", options.pooling)
    if not len(train) or not len(validation):
        raise DataError(
            f"expected images in train and validation, got {len(train)} and {len(validation)}"
        )
    keras.utils.set_random_seed(options.seed)
    classes = len(manifest.classes)
    check_label_options(options, manifest.labels_per_image)
    candidates = _candidates(features, manifest, options, train, executor)
    rows_by_levels = {name: rows for name, (rows, _) in candidates.items()}
    weights = class_weights(options.class_weights, train.labels, classes)
    solved = (
        choose_label_head(rows_by_levels, options)
        if manifest.labels_per_image == "several"
        else solve_head(rows_by_levels, classes, weights, options, time)
    )
    rows, chosen = candidates[solved.levels]
    if chosen:
        validation = FeatureRows(features, "validation", LEVELS)
    held_out = _parts(validation, manifest, chosen, stored=isinstance(rows.parts[0], StoredPart))
    fitted = _measure(solved, rows, held_out, validation.labels, clock)
    sizes = (
        measure_sizes(solved, rows, held_out, validation.labels, weights, options, time)
        if isinstance(solved, SolvedHead)
        else None
    )
    detector = _fit_detector(features, manifest, options)
    head = build_head(len(rows.mean), classes, options.seed)
    standardize(head, rows.mean, rows.variance)
    refitted = None
    if time is None or time.allows(len(rows) + len(validation), "the fit with validation images"):
        refitted = _refit(head, solved, rows, held_out, validation, options)
    set_logits(head, solved.kernel, solved.bias)
    add_offset(head.get_layer(LOGITS_LAYER), solved.offset)
    reasoning = [*explain_head(solved, options), *([sizes.sentence()] if sizes else [])]
    if time is not None and time.skipped:
        reasoning.append(time.sentence())
    for sentence in reasoning:
        log_progress(f"head: {sentence}")
    reasoning = [*manifest.reasoning, *reasoning]
    log_progress(f"head: validation accuracy {fitted.validation_accuracy:.4f}")
    choice = manifest.backbone_choice
    with staged_folder(out) as folder:
        write_curves([fitted], folder)
        written = _manifest(
            manifest, head, save_model(head, folder), solved, fitted, options, chosen
        )
        written = written.model_copy(
            update={
                "head": written.head
                | {"refit": refitted.write(folder) if refitted is not None else None},
                "made_by": MadeBy(step="train_head", version=VERSION, seconds=clock.seconds),
                "ood_detector": detector.write(folder) if detector else None,
                "measurements": written.measurements | _measurements(sizes, choice, time),
                "reasoning": [*([choice.sentence] if choice else []), *reasoning],
            }
        )
        written.write(folder)
    return written


def exceeds_memory(features: Sequence[str | os.PathLike[str]], options: HeadOptions) -> bool:
    """Return whether rows are read from disk in each step of a fit, because they are so many.

    Raises:
        InputError: a worker is missing, or the folders come from different extractions.
    """
    manifests = read_manifests(features)
    shards = [shard for manifest in manifests for shard in manifest.shards]
    count = sum(shard.count for shard in shards if shard.split == "train")
    widths = [
        math.prod(shape) for array, shape in manifests[0].arrays.items()
        if array in (options.pooling, LEVELS)
    ]  # fmt: skip
    return not fits_in_memory(count, max(widths, default=0))


def _candidates(
    features: Sequence[str | os.PathLike[str]], manifest: FeaturesManifest, options: HeadOptions,
    last: FeatureRows, executor: Executor | None,
) -> dict[str, tuple[HeadRows, list[Level]]]:  # fmt: skip
    """Return the candidates' rows and levels by name; no levels stand for the pooling alone."""
    found: dict[str, tuple[HeadRows, list[Level]]] = {}
    if options.levels != "all" or options.pooling != "gap":
        found[options.pooling] = _head_rows(last, moments(last), manifest, [], executor), []
    if options.levels == "last" or options.pooling != "gap" or not manifest.levels:
        if not found:
            raise InputError("levels: expected features of all levels, got those of the last")
        return found
    averages = [level for level in manifest.levels if level.pooling == "average"]
    groups = {"last 3 levels": averages[-3:], "all levels": averages,
              "all levels, average and maximum": manifest.levels}  # fmt: skip
    rows = FeatureRows(features, "train", LEVELS, manifest.views)
    of_all = moments(rows)
    for name, levels in groups.items():
        repeated = any(levels == known for _, known in found.values())
        if not repeated and (name != "last 3 levels" or options.levels == "auto"):
            found[name] = _head_rows(rows, of_all, manifest, levels, executor), levels
    return found


def _parts(
    rows: FeatureRows, manifest: FeaturesManifest, levels: list[Level], *, stored: bool
) -> Sequence[Rows]:
    """Return the rows, of these levels only if there are any; `stored` ones stay in their files."""
    if not levels or levels == manifest.levels:
        return rows.stored_parts() if stored else rows.parts()
    columns = level_columns(manifest, levels)
    if stored:
        return [part.take_columns(columns) for part in rows.stored_parts()]
    return [part[:, columns] for part in rows.parts()]


def _head_rows(
    train: FeatureRows,
    found: tuple[NDArray[np.float32], NDArray[np.float32]],
    manifest: FeaturesManifest,
    levels: list[Level],
    executor: Executor | None,
) -> HeadRows:
    """Return the rows of these levels; `found` are mean and variance of all stored features."""
    mean, variance = (one.reshape(-1) for one in found)
    views = manifest.views
    if levels:
        columns = level_columns(manifest, levels)
        mean, variance = mean[columns], variance[columns]
    if not np.isfinite(variance).all():
        raise InputError(
            f"features: expected finite values, got {np.sum(~np.isfinite(variance))} features with "
            "others; extract them again with --feature-dtype float32 or other --weights"
        )
    images = np.tile(train.groups(), views)
    widths = [level.width for level in levels] or [len(mean)]
    stored = not fits_in_memory(len(train) * views, len(mean))
    parts = _parts(train, manifest, levels, stored=stored)
    labels = np.tile(train.labels, (views, *[1] * (train.labels.ndim - 1)))
    by = executor if stored else None
    return HeadRows(parts, labels, images, mean, variance, widths, views, by)


def _refit(
    head: keras.Model, solved: Solved, train: HeadRows, validation: Sequence[Rows],
    images: FeatureRows, options: HeadOptions,
) -> RefittedHead:  # fmt: skip
    """Fit the chosen head to train and validation; sets the weights of `head`."""
    labels = np.concatenate([train.labels, images.labels])
    groups = images.groups() + train.images.max() + 1
    rows = replace(
        train, parts=[*train.parts, *validation], labels=labels,
        images=np.concatenate([train.images, groups]), views=1,
    )  # fmt: skip
    if isinstance(solved, SolvedHead):
        weights = class_weights(options.class_weights, labels, len(solved.offset))
        fitted = fit_again(solved, rows, weights, options)
    else:
        fitted = fit_label_head_again(solved, rows, options)
    set_logits(head, fitted.kernel, fitted.bias)
    layer = head.get_layer(LOGITS_LAYER)
    add_offset(layer, solved.offset)
    kernel, bias = layer.get_weights()
    before = Weights(solved.kernel, solved.bias + solved.offset)
    logits = np.concatenate([before.logits(part.astype(np.float32)) for part in validation])
    return RefittedHead(
        kernel, bias, logits.astype(np.float32), images.labels,
        solved.held_out_logits.astype(np.float32), solved.held_out_labels,
    )  # fmt: skip


def _fit_detector(
    features: Sequence[str | os.PathLike[str]], manifest: FeaturesManifest, options: HeadOptions
) -> OodDetector | None:
    """Fit the detector of out-of-distribution images to averages of all levels, of plain images.

    Without levels, it reads the pooled features.
    """
    layers = detector_layers(manifest.levels)
    array = LEVELS if layers else options.pooling
    width = sum(layers.values()) or math.prod(manifest.arrays[array])
    found = []
    for split in ("train", "validation"):
        rows = FeatureRows(features, split, array)
        sample = detector_sample(len(rows), width, options.seed)
        found.append((rows.rows(sample).reshape(len(sample), -1)[:, :width], rows.labels[sample]))
    (train, labels), (held_out, _) = found
    layers = layers or {f"head_{options.pooling}": width}
    return fit_ood_detector(layers, train, labels, held_out)


def _measure(
    solved: Solved, train: HeadRows, validation: Sequence[Rows],
    labels: NDArray[Any], clock: Clock,
) -> Epoch:  # fmt: skip
    """Return loss and accuracy of a head without its offset, as a line of the learning curve.

    With several labels an image, they are the means over the labels.
    """
    values: dict[str, float] = {}
    weights = Weights(solved.kernel, solved.bias)
    for prefix, parts, known in (
        ("", train.parts, train.labels), ("validation_", validation, labels)
    ):  # fmt: skip
        logits = np.concatenate([weights.logits(part.astype(np.float32)) for part in parts])
        if isinstance(solved, SolvedHead):
            values[f"{prefix}loss"] = log_loss(logits, known)
            values[f"{prefix}accuracy"] = score("accuracy", logits.argmax(axis=1), known)
        else:
            values[f"{prefix}loss"] = float(binary_losses(logits, known).mean())
            values[f"{prefix}accuracy"] = float(((logits > 0) == (known > 0)).mean())
    return Epoch(phase="head", epoch=0, seconds=clock.seconds, **values)


def _measurements(
    curve: SizeCurve | None, choice: BackboneChoice | None, time: HeadTime | None
) -> dict[str, Any]:
    """Return what there is of the learning curve, the compared backbones and the time."""
    found: dict[str, Any] = {}
    if curve is not None:
        found["training_sizes"] = asdict(curve) | {"sentence": curve.sentence()}
    if choice is not None and choice.trials:
        found["backbones"] = choice.model_dump()
    if time is not None:
        found["head_time"] = time.measurements()
    return found


def _manifest(
    features: FeaturesManifest, head: keras.Model, digest: str, solved: Solved, fitted: Epoch,
    options: HeadOptions, levels: list[Level],
) -> ModelManifest:  # fmt: skip
    height, width, channels = features.feature_map
    return ModelManifest(
        digest=digest,
        made_by=MadeBy(step="train_head", version=VERSION, seconds=fitted.seconds),
        kind="head",
        strategy="head",
        requested_strategy="head",
        backbone=features.backbone,
        weights=features.weights,
        weights_digest=features.weights_digest,
        preprocessing=Preprocessing(
            image_px=features.image_px,
            scaling=find_backbone(features.backbone, features.scaling).scaling,
        ),
        classes=features.classes,
        activation="softmax" if isinstance(solved, SolvedHead) else "sigmoid",
        thresholds=[] if isinstance(solved, SolvedHead) else solved.thresholds,
        dataset_digest=features.dataset_digest,
        cut=None,
        head={
            "pooling": options.pooling,
            "levels": [level.model_dump() for level in levels],
            "members": [asdict(trial) for trial in solved.members],
            "offset": solved.offset.tolist(),
        },
        options=options.model_dump(),
        parameters=count_parameters(head),
        head_parameters=head_parameters((height, width, channels), len(features.classes)),
        history=[fitted],
        validation_accuracy=fitted.validation_accuracy,
        validation_loss=fitted.validation_loss,
        measurements={
            "cross_validation": [asdict(trial) for trial in solved.trials],
            "held_out": solved.held_out,
        },
    )
