"""One training loop for every trained part: order, schedule, early stop, resume, NaN stop.

The order of an epoch depends on the seed and the epoch alone, so a resumed run takes the steps
that the killed one would have taken.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from components.core.artifacts import Epoch
from components.core.checkpoint import Best, Progress, restore, save
from components.core.errors import RegraftError
from components.core.step import Clock, say

Batch = tuple[NDArray[Any], NDArray[np.int32]]
# (indices int64 [n], epoch) -> (inputs [n, ...], labels int32 [n])
Fetch = Callable[[NDArray[np.int64], int], Batch]


@dataclass(frozen=True)
class Source:
    """Rows to train on: how many, how to fetch them by index, and the type of a batch.

    `prepare` turns a fetched batch into the model's input inside `tf.data`, where it runs in
    parallel to training.
    """

    count: int
    fetch: Fetch
    spec: tf.TensorSpec
    prepare: Callable[[tf.Tensor], tf.Tensor] | None = None


@dataclass(frozen=True)
class Settings:
    """How to train; `fingerprint` names model, data and options for a checkpoint."""

    phase: str
    epochs: int
    batch_size: int
    learning_rate: float
    seed: int
    classes: int
    patience: int | None = None
    label_smoothing: float = 0.0
    warm_up_share: float = 0.0
    cosine_decay: bool = False
    gradient_clip: float | None = None
    class_weights: tuple[float, ...] | None = None
    fingerprint: str = ""


def train(
    model: keras.Model,
    source: Source,
    validation: Source,
    settings: Settings,
    checkpoint: Path | None = None,
    start_loss: float | None = None,
) -> list[Epoch]:
    """Train `model` (inputs to logits) in place and leave it with its best weights.

    Best is by validation loss. With `start_loss`, the validation loss of the model as it is given,
    the starting weights count too, so that training never ends below its start. Returns the
    learning curve.

    Raises:
        RegraftError: the loss is not a number.
        InputError: the checkpoint is damaged, or of another model, dataset or options.
    """
    steps = -(-source.count // settings.batch_size)
    optimizer = keras.optimizers.Adam(_schedule(settings, steps), clipnorm=settings.gradient_clip)
    optimizer.build(model.trainable_variables)
    run_epoch, measure = _compiled(model, optimizer, settings)
    source, validation = _traced_once(source), _traced_once(validation)
    progress = Progress(settings.fingerprint)
    if start_loss is not None:
        progress.best = Best(start_loss, -1, model.get_weights())
    if checkpoint is not None and restore(checkpoint, model, optimizer, progress):
        say(f"{settings.phase}: goes on after epoch {len(progress.history)}")
    while not _finished(progress, settings):
        clock = Clock()
        epoch = len(progress.history)
        loss, accuracy = run_epoch(_shuffled(source, settings, epoch))
        validation_loss, validation_accuracy = measure(_in_order(validation, settings))
        line = Epoch(
            phase=settings.phase,
            epoch=epoch,
            loss=float(loss),
            accuracy=float(accuracy),
            validation_loss=float(validation_loss),
            validation_accuracy=float(validation_accuracy),
            seconds=clock.seconds,
        )
        _follow(line, model, progress, settings)
        if checkpoint is not None:
            save(checkpoint, model, optimizer, progress)
    if progress.best.weights is not None:
        model.set_weights(progress.best.weights)
    return progress.history


def _finished(progress: Progress, settings: Settings) -> bool:
    done = len(progress.history)
    waited = done - 1 - progress.best.epoch
    impatient = settings.patience is not None and done > 0 and waited >= settings.patience
    return done >= settings.epochs or impatient


def _follow(line: Epoch, model: keras.Model, progress: Progress, settings: Settings) -> None:
    """Take an epoch into the record; stop where the loss is not a number."""
    if not np.isfinite([line.loss, line.validation_loss]).all():
        raise RegraftError(
            f"{line.phase}: the loss became {line.loss} in epoch {line.epoch + 1}; "
            "a lower learning rate usually helps"
        )
    progress.history.append(line)
    if line.validation_loss < progress.best.loss:
        progress.best = Best(line.validation_loss, line.epoch, model.get_weights())
    say(
        f"{line.phase} epoch {line.epoch + 1}/{settings.epochs}: loss {line.loss:.4f}, "
        f"validation accuracy {line.validation_accuracy:.4f} ({line.seconds:.1f} s)"
    )


def _compiled(model: keras.Model, optimizer: Any, settings: Settings) -> tuple[Any, Any]:
    """Return two graphs over a dataset of batches: one trains, one measures.

    Both give mean loss (without penalties) and accuracy as scalars. A whole epoch is one call, as
    a small head's step takes less time than Python needs to start it.
    """
    smoothing = settings.label_smoothing

    def losses(targets: tf.Tensor, logits: tf.Tensor, smooth: float) -> tf.Tensor:
        return keras.losses.categorical_crossentropy(
            targets, logits, from_logits=True, label_smoothing=smooth
        )

    def hits(targets: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(tf.cast(tf.argmax(targets, 1) == tf.argmax(logits, 1), tf.float32))

    def step(inputs: tf.Tensor, targets: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            logits = model(inputs, training=True)
            per_picture = losses(targets, logits, smoothing) * weights
            penalties = tf.add_n(model.losses) if model.losses else 0.0
            loss = tf.reduce_mean(per_picture) + penalties
        variables = model.trainable_variables
        optimizer.apply(tape.gradient(loss, variables), variables)
        return tf.stack([tf.reduce_sum(per_picture), hits(targets, logits),
                         tf.cast(tf.shape(targets)[0], tf.float32)])  # fmt: skip

    @tf.function
    def run_epoch(batches: tf.data.Dataset) -> tf.Tensor:
        sums = tf.zeros([3])
        for inputs, targets, weights in batches:
            sums += step(inputs, targets, weights)
        return sums[:2] / sums[2]

    @tf.function
    def measure(batches: tf.data.Dataset) -> tf.Tensor:
        sums = tf.zeros([3])
        for inputs, targets, _ in batches:
            logits = model(inputs, training=False)
            sums += tf.stack([tf.reduce_sum(losses(targets, logits, 0.0)), hits(targets, logits),
                              tf.cast(tf.shape(targets)[0], tf.float32)])  # fmt: skip
        return sums[:2] / sums[2]

    return run_epoch, measure


def _schedule(settings: Settings, steps: int) -> Any:
    """Return the learning rate, or its schedule by step: linear warm-up, then cosine decay."""
    if not settings.cosine_decay:
        return settings.learning_rate
    total = steps * settings.epochs
    warm_up = max(int(settings.warm_up_share * total), 1)
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=settings.learning_rate / warm_up,
        decay_steps=max(total - warm_up, 1),
        warmup_target=settings.learning_rate,
        warmup_steps=warm_up,
    )


def epoch_order(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the order of an epoch: a permutation that depends on seed and epoch alone."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def _shuffled(source: Source, settings: Settings, epoch: int) -> tf.data.Dataset:
    order = epoch_order(source.count, settings.seed, epoch)
    return _batches(source, settings, order, epoch, settings.class_weights)


def _in_order(source: Source, settings: Settings) -> tf.data.Dataset:
    return _batches(source, settings, np.arange(source.count), 0, None)


def _traced_once(source: Source) -> Source:
    """Return the source with its `prepare` as one graph, which each epoch's dataset reuses."""
    if source.prepare is None:
        return source
    traced = tf.function(source.prepare, input_signature=[source.spec])
    return dataclasses.replace(source, prepare=traced)


def _batches(
    source: Source,
    settings: Settings,
    order: NDArray[np.int64],
    epoch: int,
    class_weights: tuple[float, ...] | None,
) -> tf.data.Dataset:
    """Return batches (inputs, one-hot targets, weights) in `order`, fetched ahead."""
    table = tf.constant(class_weights or (1.0,) * settings.classes, tf.float32)

    def generate() -> Iterator[Batch]:
        for first in range(0, len(order), settings.batch_size):
            yield source.fetch(order[first : first + settings.batch_size], epoch)

    def finish(inputs: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        if source.prepare is not None:
            inputs = source.prepare(inputs)
        return inputs, tf.one_hot(labels, settings.classes), tf.gather(table, labels)

    signature = (source.spec, tf.TensorSpec([None], tf.int32))
    data = tf.data.Dataset.from_generator(generate, output_signature=signature)
    return data.map(finish, tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
