"""One training loop for every trained part: order, schedule, early stop, resume, NaN stop.

The order of an epoch depends on the seed and the epoch alone, so a resumed run takes the steps
that the killed one would have taken.
"""

from __future__ import annotations

import contextlib
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
class Resident:
    """All rows in memory: inputs [views * n, ...], view after view, and labels int32 [n]."""

    inputs: tf.Tensor
    labels: tf.Tensor
    views: int = 1


@dataclass(frozen=True)
class Source:
    """Rows to train on: how many, how to fetch them by index, and the type of a batch.

    `prepare` turns a fetched batch into the model's input inside `tf.data`, where it runs in
    parallel to training. Rows that fit in memory are given as `resident` too, and an epoch then
    never leaves the graph: feeding a small head batch by batch takes longer than its steps.
    """

    count: int
    fetch: Fetch
    spec: tf.TensorSpec
    prepare: Callable[[tf.Tensor], tf.Tensor] | None = None
    resident: Resident | None = None


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
    averaging: float = 0.0
    rate_shares: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Start:
    """Loss and accuracy on validation of the model as it is given to `train`."""

    loss: float
    accuracy: float


class DepthAdam(keras.optimizers.Adam):
    """Adam with a share of the learning rate for each trainable variable, in their order."""

    def __init__(self, *args: Any, rate_shares: tuple[float, ...] | None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._rate_shares = rate_shares

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Take one variable's step."""
        if self._rate_shares is not None:
            share = self._rate_shares[self._get_variable_index(variable)]
            learning_rate = tf.cast(learning_rate, tf.float32) * share
        super().update_step(gradient, variable, learning_rate)


def train(
    model: keras.Model,
    source: Source,
    validation: Source,
    settings: Settings,
    checkpoint: Path | None = None,
    start: Start | None = None,
) -> list[Epoch]:
    """Train `model` (inputs to logits) in place and leave it with its best weights.

    Best is by validation loss. With `start`, the starting weights count too, and an epoch must
    also keep their accuracy, so that training never ends below its start in either. Returns the
    learning curve.

    Raises:
        RegraftError: the loss is not a number, or memory ran out.
        InputError: the checkpoint is damaged, or of another model, dataset or options.
    """
    steps = -(-source.count // settings.batch_size)
    optimizer = DepthAdam(
        _schedule(settings, steps), clipnorm=settings.gradient_clip,
        use_ema=settings.averaging > 0.0, ema_momentum=settings.averaging,
        rate_shares=settings.rate_shares,
    )  # fmt: skip
    optimizer.build(model.trainable_variables)
    loops = _compiled(model, optimizer, settings)
    source, validation = _traced_once(source), _traced_once(validation)
    progress = Progress(settings.fingerprint)
    if start is not None:
        progress.best = Best(start.loss, -1, model.get_weights())
    if checkpoint is not None and restore(checkpoint, model, optimizer, progress):
        say(f"{settings.phase}: goes on after epoch {len(progress.history)}")
    floor = start.accuracy if start is not None else 0.0
    while not _finished(progress, settings):
        try:
            line = _epoch(loops, source, validation, settings, len(progress.history))
        except tf.errors.ResourceExhaustedError as error:
            raise RegraftError(
                f"{settings.phase}: out of memory; a smaller --batch-size or --image-px needs "
                "less, and finished epochs are kept where --work-dir is given"
            ) from error
        with averaged(model, optimizer, settings):
            if settings.averaging:
                line = _measured_again(loops, validation, settings, line)
            _follow(line, model, progress, settings, floor)
        if checkpoint is not None:
            save(checkpoint, model, optimizer, progress)
    if progress.best.weights is not None:
        model.set_weights(progress.best.weights)
    return progress.history


def _epoch(
    loops: Loops, source: Source, validation: Source, settings: Settings, epoch: int
) -> Epoch:
    clock = Clock()
    order = epoch_order(source.count, settings.seed, epoch)
    loss, accuracy = _pass(loops, source, settings, order, epoch, train=True)
    everything = np.arange(validation.count)
    validation_loss, validation_accuracy = _pass(
        loops, validation, settings, everything, 0, train=False
    )
    return Epoch(
        phase=settings.phase,
        epoch=epoch,
        loss=float(loss),
        accuracy=float(accuracy),
        validation_loss=float(validation_loss),
        validation_accuracy=float(validation_accuracy),
        seconds=clock.seconds,
    )


def _measured_again(loops: Loops, validation: Source, settings: Settings, line: Epoch) -> Epoch:
    loss, accuracy = _pass(loops, validation, settings, np.arange(validation.count), 0, train=False)
    changed = {"validation_loss": float(loss), "validation_accuracy": float(accuracy)}
    return line.model_copy(update=changed)


@contextlib.contextmanager
def averaged(model: keras.Model, optimizer: Any, settings: Settings) -> Iterator[None]:
    """Lend the model the average of its weights over the last steps, where that is asked for."""
    if not settings.averaging:
        yield
        return
    variables = model.trainable_variables
    live = [variable.numpy() for variable in variables]
    optimizer.finalize_variable_values(variables)
    yield
    for variable, values in zip(variables, live, strict=True):
        variable.assign(values)


def _finished(progress: Progress, settings: Settings) -> bool:
    done = len(progress.history)
    waited = done - 1 - progress.best.epoch
    impatient = settings.patience is not None and done > 0 and waited >= settings.patience
    return done >= settings.epochs or impatient


def _follow(
    line: Epoch, model: keras.Model, progress: Progress, settings: Settings, floor: float
) -> None:
    """Take an epoch into the record; stop where the loss is not a number."""
    if not np.isfinite([line.loss, line.validation_loss]).all():
        raise RegraftError(
            f"{line.phase}: the loss became {line.loss} in epoch {line.epoch + 1}; "
            "a lower learning rate usually helps"
        )
    progress.history.append(line)
    if line.validation_loss < progress.best.loss and line.validation_accuracy >= floor:
        progress.best = Best(line.validation_loss, line.epoch, model.get_weights())
    say(
        f"{line.phase} epoch {line.epoch + 1}/{settings.epochs}: loss {line.loss:.4f}, "
        f"validation accuracy {line.validation_accuracy:.4f} ({line.seconds:.1f} s)"
    )


@dataclass(frozen=True)
class Loops:
    """Whole passes as graphs, over a dataset of batches or over rows in memory.

    Each gives mean loss (without penalties) and accuracy, float32 [2].
    """

    train: Any
    measure: Any
    train_resident: Any
    measure_resident: Any


def _compiled(model: keras.Model, optimizer: Any, settings: Settings) -> Loops:
    """Return the passes of `model`; a small head's step takes less time than starting it."""
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

    def judge(inputs: tf.Tensor, targets: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        logits = model(inputs, training=False)
        return tf.stack([tf.reduce_sum(losses(targets, logits, 0.0)), hits(targets, logits),
                         tf.cast(tf.shape(targets)[0], tf.float32)])  # fmt: skip

    def over_batches(one: Any) -> Any:
        @tf.function
        def run(batches: tf.data.Dataset) -> tf.Tensor:
            sums = tf.zeros([3])
            for inputs, targets, weights in batches:
                sums += one(inputs, targets, weights)
            return sums[:2] / sums[2]

        return run

    def over_memory(one: Any) -> Any:
        size = settings.batch_size

        @tf.function
        def run(
            inputs: tf.Tensor, labels: tf.Tensor, order: tf.Tensor, places: tf.Tensor,
            table: tf.Tensor,
        ) -> tf.Tensor:  # fmt: skip
            sums = tf.zeros([3])
            for first in tf.range(0, tf.shape(order)[0], size):
                batch = tf.cast(tf.gather(inputs, places[first : first + size]), tf.float32)
                truths = tf.gather(labels, order[first : first + size])
                targets = tf.one_hot(truths, settings.classes)
                sums += one(batch, targets, tf.gather(table, truths))
            return sums[:2] / sums[2]

        return run

    return Loops(over_batches(step), over_batches(judge), over_memory(step), over_memory(judge))


def _pass(
    loops: Loops,
    source: Source,
    settings: Settings,
    order: NDArray[np.int64],
    epoch: int,
    *,
    train: bool,
) -> NDArray[np.float32]:
    """Run one pass over the rows of `source` in `order`; return mean loss and accuracy."""
    weights = settings.class_weights if train else None
    if source.resident is None:
        run = loops.train if train else loops.measure
        batches = _batches(source, settings, order, epoch, weights)
        return np.asarray(run(batches))
    held = source.resident
    run = loops.train_resident if train else loops.measure_resident
    places = order + source.count * ((epoch + order) % held.views)
    table = tf.constant(weights or (1.0,) * settings.classes, tf.float32)
    return np.asarray(run(held.inputs, held.labels, tf.constant(order), tf.constant(places), table))


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
