"""Head search: a grid of heads trained together on the cached features, compared on validation.

All heads see the same batches in the same pass, so that a grid costs little more than its largest
head. The best one's options are then trained as any head.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

import keras
import tensorflow as tf

from components.core.artifacts import FeaturesManifest
from components.core.errors import InputError
from components.core.feature_store import RESIDENT_BYTES, FeatureRows, moments
from components.core.models import build_head, standardise
from components.core.options import HeadKind, HeadOptions
from components.core.passes import DepthAdam
from components.core.sources import epoch_order
from components.core.step import Clock, say

WIDTHS = (0, 128)
DROPOUTS = (0.0, 0.4)
# Times the given learning rate.
RATES = (1.0, 4.0)


@dataclass
class Trial:
    """One head of the grid, and its best epoch on validation so far."""

    options: HeadOptions
    model: keras.Model
    loss: float = float("inf")
    accuracy: float = 0.0
    epoch: int = -1

    def figures(self) -> dict[str, Any]:
        """Return what was tried and how it did, for the manifest."""
        tried = self.options.model_dump(
            include={"head", "dense_width", "dropout", "head_learning_rate"}
        )
        return {**tried, "parameters": self.model.count_params(), "epoch": self.epoch,
                "validation_loss": self.loss, "validation_accuracy": self.accuracy}  # fmt: skip


@dataclass(frozen=True)
class Rows:
    """The rows of a split in memory: each pooling's [views * n, width], and labels int32 [n]."""

    inputs: dict[str, tf.Tensor]
    labels: tf.Tensor
    count: int
    views: int
    moments: dict[str, Any] = field(default_factory=dict)


def search_heads(
    features: Sequence[str | os.PathLike[str]],
    manifest: FeaturesManifest,
    options: HeadOptions,
    class_weights: tuple[float, ...],
) -> tuple[HeadOptions, list[Trial]]:
    """Train the grid and return the options of the best head, and all trials, best first.

    Raises:
        InputError: the features of no pooling fit in memory.
    """
    clock = Clock()
    kinds = _kinds(features, manifest)
    train = _rows(features, "train", kinds, manifest.views)
    validation = _rows(features, "validation", kinds, 1)
    trials = [_trial(way, manifest, train) for way in _grid(kinds, options)]
    run_epoch, measure = _compiled(trials, options, class_weights)
    epochs = 0
    for epoch in range(options.head_epochs):
        order = epoch_order(train.count, options.seed, epoch)
        places = order + train.count * ((epoch + order) % train.views)
        run_epoch(train.inputs, train.labels, tf.constant(order), tf.constant(places))
        losses, accuracies = measure(validation.inputs, validation.labels)
        for trial, loss, accuracy in zip(trials, losses.numpy(), accuracies.numpy(), strict=True):
            if loss < trial.loss:
                trial.loss, trial.accuracy, trial.epoch = float(loss), float(accuracy), epoch
        epochs = epoch + 1
        if epoch - max(trial.epoch for trial in trials) >= options.patience:
            break
    trials.sort(key=lambda trial: (trial.loss, trial.model.count_params()))
    best = trials[0].options
    say(f"head search: {len(trials)} heads in {epochs} epochs ({clock.seconds:.1f} s): best is "
        f"{best.head}, width {best.dense_width}, dropout {best.dropout:g}, rate "
        f"{best.head_learning_rate:g}, validation accuracy {trials[0].accuracy:.4f}")  # fmt: skip
    return best, trials


def _kinds(
    features: Sequence[str | os.PathLike[str]], manifest: FeaturesManifest
) -> list[HeadKind]:
    """Return the poolings that were extracted and fit in memory."""
    kinds: list[HeadKind] = []
    for kind in get_args(HeadKind):
        if kind in manifest.arrays:
            if FeatureRows(features, "train", kind, manifest.views).nbytes <= RESIDENT_BYTES:
                kinds.append(kind)
            else:
                say(f"head search: {kind} is left out, its features exceed {RESIDENT_BYTES} bytes")
    if not kinds:
        raise InputError(f"head search: expected features up to {RESIDENT_BYTES} bytes, got more")
    return kinds


def _rows(
    features: Sequence[str | os.PathLike[str]], split: Any, kinds: list[HeadKind], views: int
) -> Rows:
    rows = {kind: FeatureRows(features, split, kind, views) for kind in kinds}
    held = {kind: rows[kind].in_memory() for kind in kinds}
    first = held[kinds[0]]
    facts: dict[str, Any] = {}
    if split == "train":
        facts.update({kind: moments(rows[kind]) for kind in kinds})
    inputs: dict[str, tf.Tensor] = {kind: held[kind].inputs for kind in kinds}
    return Rows(inputs, first.labels, len(rows[kinds[0]]), views, facts)


def _grid(kinds: list[HeadKind], options: HeadOptions) -> list[HeadOptions]:
    """Return the grid, which holds the given width and dropout too."""
    widths = sorted({*WIDTHS, options.dense_width})
    dropouts = sorted({*DROPOUTS, options.dropout})
    return [
        options.model_copy(
            update={"head": kind, "dense_width": width, "dropout": dropout,
                    "head_learning_rate": options.head_learning_rate * rate}
        )
        for kind, width, dropout, rate in itertools.product(kinds, widths, dropouts, RATES)
    ]  # fmt: skip


def _trial(options: HeadOptions, manifest: FeaturesManifest, train: Rows) -> Trial:
    model = build_head(manifest.arrays[options.head][0], len(manifest.classes), options)
    standardise(model, *train.moments[options.head])
    return Trial(options, model)


def _compiled(
    trials: list[Trial], options: HeadOptions, class_weights: tuple[float, ...]
) -> tuple[Any, Any]:
    """Return one pass of training over all heads, and one that measures them.

    The heads share no weights, so the gradient of the sum of their losses is each one's own.
    """
    variables = [v for trial in trials for v in trial.model.trainable_variables]
    shares = tuple(trial.options.head_learning_rate / options.head_learning_rate
                   for trial in trials for _ in trial.model.trainable_variables)  # fmt: skip
    optimizer = DepthAdam(options.head_learning_rate, rate_shares=shares)
    optimizer.build(variables)
    table = tf.constant(class_weights, tf.float32)
    size = options.batch_size

    def loss_of(trial: Trial, batch: dict[str, tf.Tensor], targets: tf.Tensor, weights: tf.Tensor
                ) -> tf.Tensor:  # fmt: skip
        logits = trial.model(batch[trial.options.head], training=True)
        each = keras.losses.categorical_crossentropy(
            targets, logits, from_logits=True, label_smoothing=options.label_smoothing
        )
        return tf.add_n([tf.reduce_mean(each * weights), *trial.model.losses])

    @tf.function
    def run_epoch(
        inputs: dict[str, tf.Tensor], labels: tf.Tensor, order: tf.Tensor, places: tf.Tensor
    ) -> None:
        for first in tf.range(0, tf.shape(order)[0], size):
            batch = {kind: tf.cast(tf.gather(rows, places[first : first + size]), tf.float32)
                     for kind, rows in inputs.items()}  # fmt: skip
            truths = tf.gather(labels, order[first : first + size])
            targets, weights = tf.one_hot(truths, len(class_weights)), tf.gather(table, truths)
            with tf.GradientTape() as tape:
                loss = tf.add_n([loss_of(trial, batch, targets, weights) for trial in trials])
            optimizer.apply(tape.gradient(loss, variables), variables)

    @tf.function
    def measure(inputs: dict[str, tf.Tensor], labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        losses, accuracies = [], []
        for trial in trials:
            rows = tf.cast(inputs[trial.options.head], tf.float32)
            logits = trial.model(rows, training=False)
            each = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            hits = tf.argmax(logits, 1, tf.int32) == labels
            losses.append(tf.reduce_mean(each))
            accuracies.append(tf.reduce_mean(tf.cast(hits, tf.float32)))
        return tf.stack(losses), tf.stack(accuracies)

    return run_epoch, measure
