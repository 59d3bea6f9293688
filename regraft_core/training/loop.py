"""One training loop for every trained part: order, schedule, early stop, resume, NaN stop.

The order of an epoch depends on the seed and the epoch alone, so a resumed run takes the steps
that the killed one would have taken.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from regraft_core.formats.manifests import Epoch
from regraft_core.formats.options import ClassWeights
from regraft_core.runtime.errors import InputError, RegraftError
from regraft_core.runtime.step import Clock, ProgressReporter, log_progress
from regraft_core.training.acceleration import is_chief
from regraft_core.training.checkpoint import Best, Progress, restore, save
from regraft_core.training.epoch_graphs import (
    EpochGraphs,
    LayerwiseAdam,
    compile_epoch_graphs,
    run_epoch,
)
from regraft_core.training.training_source import Source, epoch_order, traced_once


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
    ema_momentum: float = 0.0
    rate_shares: tuple[float, ...] | None = None
    mixed: bool = False


@dataclass(frozen=True)
class Start:
    """Loss and accuracy on validation of the model as it is given to `train`."""

    loss: float
    accuracy: float


def class_weights(
    how: ClassWeights, labels: NDArray[np.int32], classes: int
) -> tuple[float, ...] | None:
    """Return a weight a class, n / (classes * n_class) so that all weigh the same; None for off."""
    if how == "off":
        return None
    counts = np.maximum(np.bincount(labels, minlength=classes), 1)
    return tuple((len(labels) / (classes * counts)).tolist())


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
    also keep their accuracy, so that training never ends below its start in either. Under a
    `tf.distribute` strategy the steps are those of one replica. Returns the learning curve.

    Raises:
        RegraftError: the loss is not a number.
        InputError: the checkpoint is damaged, or of another model, dataset or options.
    """
    steps = -(-source.count // settings.batch_size)
    optimizer = _optimizer(settings, steps)
    optimizer.build(model.trainable_variables)
    passes = compile_epoch_graphs(
        model, optimizer, settings.batch_size, settings.classes, settings.label_smoothing
    )
    source, validation = traced_once(source), traced_once(validation)
    progress = Progress(settings.fingerprint)
    if start is not None:
        progress.best = Best(start.loss, -1, model.get_weights())
    if checkpoint is not None:
        if restore(checkpoint, model, optimizer, progress):
            log_progress(f"{settings.phase}: goes on after epoch {len(progress.history)}")
        _check_agreement(len(progress.history), checkpoint)
    floor = start.accuracy if start is not None else 0.0
    while not _finished(progress, settings):
        line = _epoch(passes, source, validation, settings, len(progress.history))
        with averaged(model, optimizer, settings):
            if settings.ema_momentum:
                loss, accuracy = _measured(passes, validation)
                changed = {"validation_loss": loss, "validation_accuracy": accuracy}
                line = line.model_copy(update=changed)
            _follow(line, model, progress, settings, floor)
        if checkpoint is not None and is_chief():
            save(checkpoint, model, optimizer, progress)
    if progress.best.weights is not None:
        model.set_weights(progress.best.weights)
    return progress.history


def _epoch(
    passes: EpochGraphs, source: Source, validation: Source, settings: Settings, epoch: int
) -> Epoch:
    clock = Clock()
    order = epoch_order(source.count, settings.seed, epoch)
    pulse = ProgressReporter(f"{settings.phase} epoch {epoch + 1}/{settings.epochs}", source.count)
    loss, accuracy = run_epoch(
        passes, source, order, epoch, settings.class_weights, train=True, pulse=pulse
    )
    validation_loss, validation_accuracy = _measured(passes, validation)
    return Epoch(
        phase=settings.phase,
        epoch=epoch,
        loss=float(loss),
        accuracy=float(accuracy),
        validation_loss=validation_loss,
        validation_accuracy=validation_accuracy,
        seconds=clock.seconds,
    )


def _measured(passes: EpochGraphs, validation: Source) -> tuple[float, float]:
    everything = np.arange(validation.count)
    loss, accuracy = run_epoch(passes, validation, everything, 0, None, train=False)
    return float(loss), float(accuracy)


@contextlib.contextmanager
def averaged(model: keras.Model, optimizer: Any, settings: Settings) -> Iterator[None]:
    """Lend the model the average of its weights over the last steps, where that is asked for."""
    if not settings.ema_momentum:
        yield
        return
    variables = model.trainable_variables
    live = [variable.numpy() for variable in variables]
    optimizer.finalize_variable_values(variables)
    yield
    for variable, values in zip(variables, live, strict=True):
        variable.assign(values)


def _check_agreement(done: int, checkpoint: Path) -> None:
    """Check that all machines found the same checkpoint, or none."""
    strategy = tf.distribute.get_strategy()
    replicas = strategy.num_replicas_in_sync
    if replicas == 1:
        return
    each = strategy.run(lambda: tf.constant(done))
    total = int(strategy.reduce(tf.distribute.ReduceOp.SUM, each, axis=None))
    if total != done * replicas:
        raise InputError(
            f"expected the checkpoint in {checkpoint} on every machine, this one has {done} "
            f"epochs, all together {total}: --work-dir must be shared by all"
        )


def _finished(progress: Progress, settings: Settings) -> bool:
    done = len(progress.history)
    waited = done - 1 - progress.best.epoch
    impatient = settings.patience is not None and done > 0 and waited >= settings.patience
    return done >= settings.epochs or impatient


def _follow(
    line: Epoch, model: keras.Model, progress: Progress, settings: Settings, floor: float
) -> None:
    """Take an epoch into the record; stop where the loss is not a number."""
    for name, loss in ("loss", line.loss), ("validation loss", line.validation_loss):
        if not np.isfinite(loss):
            raise RegraftError(
                f"{line.phase}: the {name} became {loss} in epoch {line.epoch + 1}; "
                "a lower learning rate usually helps"
            )
    progress.history.append(line)
    if line.validation_loss < progress.best.loss and line.validation_accuracy >= floor:
        progress.best = Best(line.validation_loss, line.epoch, model.get_weights())
    log_progress(
        f"{line.phase} epoch {line.epoch + 1}/{settings.epochs}: loss {line.loss:.4f}, "
        f"validation accuracy {line.validation_accuracy:.4f} ({line.seconds:.1f} s)"
    )


def _optimizer(settings: Settings, steps: int) -> Any:
    adam = LayerwiseAdam(
        _schedule(settings, steps), clipnorm=settings.gradient_clip,
        use_ema=settings.ema_momentum > 0.0, ema_momentum=settings.ema_momentum,
        rate_shares=settings.rate_shares,
    )  # fmt: skip
    return keras.optimizers.LossScaleOptimizer(adam) if settings.mixed else adam


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
