"""What each strategy trains: `top` from cached activations at the cut, `full` from images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np

from regraft_core.backbones.cuts import cut_points, find_cut, freeze, join, split
from regraft_core.backbones.flops import model_flops
from regraft_core.formats.manifest_storage import digest_of
from regraft_core.formats.manifests.features import FeaturesManifest, Level
from regraft_core.formats.manifests.model import ModelManifest
from regraft_core.formats.options.fine_tune import FineTuneOptions
from regraft_core.formats.options.option_types import MACHINE_OPTIONS
from regraft_core.formats.options.train_head import HeadOptions
from regraft_core.runtime.errors import InputError
from regraft_core.training.feature_store import CUT, LEVELS, FeatureRows, feature_source
from regraft_core.training.heads import LOGITS_LAYER, level_layer
from regraft_core.training.image_source import ImageRows, image_source
from regraft_core.training.loop import Settings, class_weights
from regraft_core.training.mixed_precision import HalfPrecision
from regraft_core.training.training_source import Source

# With `adapt`, the moving averages have time to replace their initial values this many times.
ADAPT_TURNOVERS = 8
# The gradients take about twice the operations of the forward pass.
TRAINING_PASSES = 3
# A head with more inputs than these has a learning rate that is lower in proportion. Adam changes
# each weight by about the learning rate, so a logit by this times the sum of the inputs: with
# thousands of them, far too much for a head that is solved. The proportion is that of Yang et al.,
# "Tensor Programs V" (2022), arXiv 2203.03466.
HEAD_INPUTS = 256


@dataclass(frozen=True)
class Parts:
    """The input of fine-tuning; `complete` is the backbone followed by the head's layers."""

    dataset: str | os.PathLike[str]
    folders: Sequence[str | os.PathLike[str]]
    backbone: keras.Model
    head_layers: list[keras.layers.Layer]
    complete: keras.Model
    head: ModelManifest
    features: FeaturesManifest

    @property
    def cached(self) -> bool:
        """Whether the activations at the cut are cached; otherwise `top` trains from images."""
        return CUT in self.features.arrays


def trained_part(parts: Parts, strategy: str) -> keras.Model:
    """Return the part of the backbone that `strategy` trains.

    Raises:
        InputError: no cut was chosen when the features were extracted.
    """
    if strategy == "full":
        return parts.backbone
    if parts.features.cut is None:
        raise InputError("strategy top: expected features with activations at a cut, got none")
    return split(parts.backbone, parts.features.cut)[1]


def training_flops(parts: Parts, strategy: str) -> float:
    """Return the operations per image of a step; frozen layers compute if nothing is cached."""
    trained, total = model_flops(trained_part(parts, strategy)), model_flops(parts.backbone)
    below = 0.0 if strategy == "top" and parts.cached else float(total - trained)
    return below + TRAINING_PASSES * trained


def unfreeze(parts: Parts, strategy: str, options: FineTuneOptions, steps: int) -> None:
    """Make the part of `strategy` and the head trainable, and freeze all other layers.

    BatchNormalization keeps its statistics, or updates them with `adapt`. So does the head's
    standardization, because the scale of the features changes with them.
    """
    freeze(parts.backbone)
    for layer in [*trained_part(parts, strategy).layers, *parts.head_layers]:
        batch_norm = isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = not batch_norm or options.batch_norm == "adapt"
        if batch_norm and layer.trainable:
            layer.momentum = float(np.clip(1.0 - ADAPT_TURNOVERS / steps, 0.5, 0.99))


def model_and_data(parts: Parts, strategy: str, seed: int) -> tuple[keras.Model, Source, Source]:
    """Return the model to train, and its training and validation data: activations or images.

    Images are augmented with the policy of the cached views, differently in each epoch.
    """
    if strategy == "top" and parts.cached:
        views = parts.features.views
        train_rows = FeatureRows(parts.folders, "train", CUT, views)
        validation_rows = FeatureRows(parts.folders, "validation", CUT)
        cut = parts.features.cut
        if not parts.head.head["levels"] or cut is None:
            model = join(trained_part(parts, strategy), parts.head_layers)
            return model, feature_source(train_rows), feature_source(validation_rows)
        model, columns = _above_cut(parts, cut)
        if not columns:
            return model, feature_source(train_rows), feature_source(validation_rows)
        constant = FeatureRows(parts.folders, "train", LEVELS, views)
        held = FeatureRows(parts.folders, "validation", LEVELS)
        return (
            model,
            feature_source(train_rows, constant, columns),
            feature_source(validation_rows, held, columns),
        )
    preprocessing, features = parts.head.preprocessing, parts.features
    images, validation = (ImageRows(parts.dataset, split) for split in ("train", "validation"))
    augmented = image_source(images, preprocessing, features.augment, seed, flips=features.flips)
    return parts.complete, augmented, image_source(validation, preprocessing)


def _above_cut(parts: Parts, cut: str) -> tuple[keras.Model, list[slice]]:
    """Return the model from the activations at the cut and the levels below it to the logits.

    The frozen layers below the cut compute these levels, so they are constant inputs: the columns
    that are returned, of the array of all levels.
    """
    point = find_cut(parts.backbone, cut)
    index = {one.name: one.index for one in cut_points(parts.backbone)}
    ends = dict(zip(
        ((level.layer, level.pooling) for level in parts.features.levels),
        np.cumsum([level.width for level in parts.features.levels]).tolist(),
        strict=True,
    ))  # fmt: skip
    levels = [Level(**level) for level in parts.head.head["levels"]]
    below = [level for level in levels if index[level.layer] < point.index]
    pooled = [parts.complete.get_layer(level_layer(level).name).output for level in below]
    inputs = (point.tensor, *pooled) if pooled else point.tensor
    model = keras.Model(inputs, parts.complete.output)
    found = [ends[level.layer, level.pooling] for level in below]
    return model, [slice(e - level.width, e) for e, level in zip(found, below, strict=True)]


def lr_ratios(model: keras.Model, lowest: float) -> tuple[float, ...] | None:
    """Return each trainable variable's learning rate ratio, None if all are 1.

    It rises by the same factor from each trained layer to the next, from `lowest` to 1. That of a
    head with more inputs than `HEAD_INPUTS` is multiplied by their ratio.
    """
    layers = [layer for layer in model.layers if layer.trainable_variables]
    count = max(len(layers) - 1, 1)
    by_variable = {
        id(variable): lowest ** ((len(layers) - 1 - depth) / count) * _width_ratio(layer)
        for depth, layer in enumerate(layers)
        for variable in layer.trainable_variables
    }
    ratios = tuple(by_variable[id(variable)] for variable in model.trainable_variables)
    return None if set(ratios) <= {1.0} else ratios


def _width_ratio(layer: keras.layers.Layer) -> float:
    """Return the learning rate ratio by the inputs of a head; 1 for a layer of the backbone."""
    if layer.name != LOGITS_LAYER:
        return 1.0
    return min(HEAD_INPUTS / layer.kernel.shape[0], 1.0)


def shared_settings(
    parts: Parts,
    phase: str,
    options: FineTuneOptions,
    model: keras.Model,
    count: int,
    half: HalfPrecision,
) -> Settings:
    """Return the settings of all trainings of a strategy, which have their own rates and lengths.

    Args:
        parts: the input of fine-tuning.
        phase: name of the strategy.
        options: of the step.
        model: what is trained.
        count: number of training images.
        half: half precision, if any.
    """
    used = options.model_dump(exclude={*MACHINE_OPTIONS, "precision"})
    fingerprint = digest_of(
        [parts.head.digest, parts.features.digest, parts.cached, phase, count, used, half]
    )
    head = HeadOptions(**parts.head.options)
    classes = len(parts.head.classes)
    labels = FeatureRows(parts.folders, "train", head.pooling).labels
    return Settings(
        phase=phase,
        epochs=0,
        batch_size=options.batch_size,
        learning_rate=0.0,
        seed=options.seed,
        classes=classes,
        # The same as in the training of the head.
        label_smoothing=head.label_smoothing,
        class_weights=class_weights(head.class_weights, labels, classes),
        warm_up_fraction=0.1,
        cosine_decay=True,
        gradient_clip=1.0,
        ema_momentum=0.0 if options.ema_momentum else None,
        lr_ratios=lr_ratios(model, options.lowest_lr_ratio),
        fingerprint=fingerprint,
        half=half,
        mix=options.mix,
        several=parts.head.activation == "sigmoid",
    )
