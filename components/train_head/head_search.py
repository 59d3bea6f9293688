"""Head search: trains a grid of heads together on cached features and compares their validation.

All heads use the same batches, so a grid costs little more than its largest head. A head with the
best options is then trained as usual.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import keras
import tensorflow as tf

from regraft_core.formats.manifest_storage import digest_of
from regraft_core.formats.manifests import FeaturesManifest
from regraft_core.formats.options import MACHINE_OPTIONS, HeadKind, HeadOptions
from regraft_core.runtime.errors import InputError
from regraft_core.runtime.step_reports import Clock, log_progress
from regraft_core.training.checkpoint import checkpoint_folder, read_state, write_state
from regraft_core.training.epoch_graphs import LayerwiseAdam
from regraft_core.training.feature_store import RESIDENT_BYTES, FeatureRows, moments
from regraft_core.training.heads import build_head, standardize
from regraft_core.training.training_source import epoch_order

WIDTHS = (0, 128)
DROPOUTS = (0.0, 0.4)
# Multiples of the given learning rate.
LR_RATIOS = (1.0, 4.0)


@dataclass
class Trial:
    """One head of the grid, and its best epoch on validation so far."""

    options: HeadOptions
    model: keras.Model
    loss: float = float("inf")
    accuracy: float = 0.0
    epoch: int = -1

    def measurements(self) -> dict[str, Any]:
        """Return the options and results of the trial, for the manifest."""
        used = self.options.model_dump(
            include={"pooling", "dense_width", "dropout", "head_learning_rate"}
        )
        return {**used, "parameters": self.model.count_params(), "epoch": self.epoch,
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
    """Train the grid; return the options of the best head, and all trials, the best first.

    Raises:
        InputError: the features do not fit in memory with any pooling.
    """
    clock = Clock()
    kinds = _kinds(features, manifest)
    train = _rows(features, "train", kinds, manifest.views)
    validation = _rows(features, "validation", kinds, 1)
    trials = [_trial(point, manifest, train) for point in _grid(kinds, options)]
    grid = _Grid(trials, options, class_weights)
    fingerprint = digest_of(
        [manifest.digest, "search", options.model_dump(exclude={*MACHINE_OPTIONS})]
    )
    checkpoint = checkpoint_folder(options.work_dir, "head_search", fingerprint)
    epochs = grid.restore(checkpoint, fingerprint) if checkpoint is not None else 0
    while epochs < options.head_epochs and epochs - 1 - _latest(trials) < options.patience:
        epoch_clock = Clock()
        order = epoch_order(train.count, options.seed, epochs)
        rows = order + train.count * ((epochs + order) % train.views)
        grid.train(train.inputs, train.labels, tf.constant(order), tf.constant(rows))
        losses, accuracies = grid.measure(validation.inputs, validation.labels)
        for trial, loss, accuracy in zip(trials, losses.numpy(), accuracies.numpy(), strict=True):
            if loss < trial.loss:
                trial.loss, trial.accuracy, trial.epoch = float(loss), float(accuracy), epochs
        epochs += 1
        if checkpoint is not None:
            grid.save(checkpoint, fingerprint, epochs)
        accuracy = min(trials, key=lambda trial: trial.loss).accuracy
        log_progress(f"head search epoch {epochs}/{options.head_epochs}: best validation accuracy "
            f"{accuracy:.4f} ({epoch_clock.seconds:.1f} s)")  # fmt: skip
    trials.sort(key=lambda trial: (trial.loss, trial.model.count_params()))
    best = trials[0].options
    log_progress(
        f"head search: {len(trials)} heads in {epochs} epochs ({clock.seconds:.1f} s): best is "
        f"{best.pooling}, width {best.dense_width}, dropout {best.dropout:g}, learning rate "
        f"{best.head_learning_rate:g}, validation accuracy {trials[0].accuracy:.4f}"
    )
    return best, trials


def _latest(trials: list[Trial]) -> int:
    """Return the last epoch in which any trial improved, -1 if none has."""
    return max(trial.epoch for trial in trials)


def _kinds(
    features: Sequence[str | os.PathLike[str]], manifest: FeaturesManifest
) -> list[HeadKind]:
    """Return the extracted poolings whose features fit in memory."""
    kinds: list[HeadKind] = []
    for kind in get_args(HeadKind):
        if kind in manifest.arrays:
            if FeatureRows(features, "train", kind, manifest.views).nbytes <= RESIDENT_BYTES:
                kinds.append(kind)
            else:
                log_progress(
                    f"head search: skips {kind}, its features exceed {RESIDENT_BYTES} bytes"
                )
    if not kinds:
        raise InputError(f"head search: expected features up to {RESIDENT_BYTES} bytes, got more")
    return kinds


def _rows(
    features: Sequence[str | os.PathLike[str]], split: Any, kinds: list[HeadKind], views: int
) -> Rows:
    rows = {kind: FeatureRows(features, split, kind, views) for kind in kinds}
    resident = {kind: rows[kind].in_memory() for kind in kinds}
    statistics: dict[str, Any] = (
        {kind: moments(rows[kind]) for kind in kinds} if split == "train" else {}
    )
    inputs: dict[str, tf.Tensor] = {kind: resident[kind].inputs for kind in kinds}
    return Rows(inputs, resident[kinds[0]].labels, len(rows[kinds[0]]), views, statistics)


def _grid(kinds: list[HeadKind], options: HeadOptions) -> list[HeadOptions]:
    """Return the grid, which includes the given width and dropout."""
    widths = sorted({*WIDTHS, options.dense_width})
    dropouts = sorted({*DROPOUTS, options.dropout})
    return [
        options.model_copy(
            update={"pooling": kind, "dense_width": width, "dropout": dropout,
                    "head_learning_rate": options.head_learning_rate * ratio}
        )
        for kind, width, dropout, ratio in itertools.product(kinds, widths, dropouts, LR_RATIOS)
    ]  # fmt: skip


def _trial(options: HeadOptions, manifest: FeaturesManifest, train: Rows) -> Trial:
    model = build_head(manifest.arrays[options.pooling][0], len(manifest.classes), options)
    standardize(model, *train.moments[options.pooling])
    return Trial(options, model)


class _Grid:
    """All heads as one model: `train` runs an epoch for all, `measure` evaluates each.

    The heads share no weights, so the gradient of the sum of their losses is that of each head.
    """

    def __init__(
        self, trials: list[Trial], options: HeadOptions, class_weights: tuple[float, ...]
    ) -> None:
        self._trials, self._options = trials, options
        self._class_weights = tf.constant(class_weights, tf.float32)
        self._weights = [v for trial in trials for v in trial.model.trainable_variables]
        ratios = tuple(trial.options.head_learning_rate / options.head_learning_rate
                       for trial in trials for _ in trial.model.trainable_variables)  # fmt: skip
        self._optimizer = LayerwiseAdam(options.head_learning_rate, lr_ratios=ratios)
        self._optimizer.build(self._weights)
        self.train, self.measure = tf.function(self._train), tf.function(self._measure)

    def save(self, folder: Path, fingerprint: str, epochs: int) -> None:
        """Write the state after `epochs`."""
        groups = {name: [variable.numpy() for variable in group]
                  for name, group in self._variables().items()}  # fmt: skip
        best = [[str(trial.loss), trial.accuracy, trial.epoch] for trial in self._trials]
        write_state(folder, fingerprint, epochs, groups, {"epochs": epochs, "best": best})

    def restore(self, folder: Path, fingerprint: str) -> int:
        """Load the state of `folder`; return the number of its epochs.

        Raises:
            InputError: it is damaged, or of other features or options.
        """
        state = read_state(folder, fingerprint, self._variables())
        if state is None:
            return 0
        metadata, _ = state
        for trial, (loss, accuracy, epoch) in zip(self._trials, metadata["best"], strict=True):
            trial.loss, trial.accuracy, trial.epoch = float(loss), accuracy, epoch
        log_progress(f"head search: resumes after epoch {metadata['epochs']}")
        return int(metadata["epochs"])

    def _variables(self) -> dict[str, list[Any]]:
        return {
            "variable": [v for trial in self._trials for v in trial.model.variables],
            "optimizer": list(self._optimizer.variables),
        }

    def _loss(
        self, trial: Trial, batch: dict[str, tf.Tensor], targets: tf.Tensor, weights: tf.Tensor
    ) -> tf.Tensor:
        logits = trial.model(batch[trial.options.pooling], training=True)
        smoothing = self._options.label_smoothing
        per_image = keras.losses.categorical_crossentropy(
            targets, logits, from_logits=True, label_smoothing=smoothing
        )
        return tf.add_n([tf.reduce_mean(per_image * weights), *trial.model.losses])

    def _train(
        self, inputs: dict[str, tf.Tensor], labels: tf.Tensor, order: tf.Tensor, rows: tf.Tensor
    ) -> None:
        size = self._options.batch_size
        for first in tf.range(0, tf.shape(order)[0], size):
            batch = {kind: tf.cast(tf.gather(array, rows[first : first + size]), tf.float32)
                     for kind, array in inputs.items()}  # fmt: skip
            true_labels = tf.gather(labels, order[first : first + size])
            targets = tf.one_hot(true_labels, len(self._class_weights))
            weights = tf.gather(self._class_weights, true_labels)
            with tf.GradientTape() as tape:
                losses = [self._loss(trial, batch, targets, weights) for trial in self._trials]
                loss = tf.add_n(losses)
            self._optimizer.apply(tape.gradient(loss, self._weights), self._weights)

    def _measure(
        self, inputs: dict[str, tf.Tensor], labels: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        losses, accuracies = [], []
        for trial in self._trials:
            rows = tf.cast(inputs[trial.options.pooling], tf.float32)
            logits = trial.model(rows, training=False)
            per_image = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            correct = tf.argmax(logits, 1, tf.int32) == labels
            losses.append(tf.reduce_mean(per_image))
            accuracies.append(tf.reduce_mean(tf.cast(correct, tf.float32)))
        return tf.stack(losses), tf.stack(accuracies)
