"""The training loop: order, learning rate schedule, early stopping, resuming, NaN check.

The order of an epoch depends only on the seed and the epoch, so a resumed training takes the same
steps as an uninterrupted one.
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
from regraft_core.runtime.step_reports import Clock, ProgressReporter, log_progress
from regraft_core.training.checkpoint import Best, Progress, restore, save
from regraft_core.training.distribution import is_chief
from regraft_core.training.epoch_graphs import (
    EpochGraphs,
    LayerwiseAdam,
    compile_epoch_graphs,
    run_epoch,
)
from regraft_core.training.mixed_precision import HalfPrecision
from regraft_core.training.training_source import Source, epoch_order, trace_prepare


@dataclass(frozen=True)
class Settings:
    """How to train; `fingerprint` identifies model, data and options for a checkpoint."""

    phase: str
    epochs: int
    batch_size: int
    learning_rate: float
    seed: int
    classes: int
    patience: int | None = None
    label_smoothing: float = 0.0
    warm_up_fraction: float = 0.0
    cosine_decay: bool = False
    gradient_clip: float | None = None
    class_weights: tuple[float, ...] | None = None
    fingerprint: str = ""
    ema_momentum: float = 0.0
    lr_ratios: tuple[float, ...] | None = None
    half: HalfPrecision = ""


@dataclass(frozen=True)
class Start:
    """Validation loss and accuracy of a model before training."""

    loss: float
    accuracy: float


def class_weights(
    kind: ClassWeights, labels: NDArray[np.int32], classes: int
) -> tuple[float, ...] | None:
    """Return a weight per class, n / (classes * n_class), for `balanced`; None for `off`."""
    if kind == "off":
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
    """Train `model` (inputs to logits) in place, restore its best weights; return the history.

    The best epoch is the one with the lowest validation loss. With `start`, the initial weights
    count too, and an epoch must also keep their accuracy, so that training never ends below its
    start in either. Under a `tf.distribute` strategy the steps equal those of one replica.

    Raises:
        RegraftError: the loss is not finite.
        InputError: the checkpoint is damaged, or of another model, dataset or options.
    """
    steps = -(-source.count // settings.batch_size)
    optimizer = _optimizer(settings, steps)
    optimizer.build(model.trainable_variables)
    graphs = compile_epoch_graphs(
        model, optimizer, settings.batch_size, settings.classes, settings.label_smoothing
    )
    source, validation = trace_prepare(source), trace_prepare(validation)
    progress = Progress(settings.fingerprint)
    if start is not None:
        progress.best = Best(start.loss, -1, model.get_weights())
    if checkpoint is not None:
        if restore(checkpoint, model, optimizer, progress):
            log_progress(f"{settings.phase}: resumes after epoch {len(progress.history)}")
        _check_agreement(len(progress.history), checkpoint)
    floor = start.accuracy if start is not None else 0.0
    while not _finished(progress, settings):
        epoch = _run_epoch(graphs, source, validation, settings, len(progress.history))
        with use_averaged_weights(model, optimizer, settings):
            if settings.ema_momentum:
                loss, accuracy = _measure(graphs, validation)
                changed = {"validation_loss": loss, "validation_accuracy": accuracy}
                epoch = epoch.model_copy(update=changed)
            _record_epoch(epoch, model, progress, settings, floor)
        if checkpoint is not None and is_chief():
            save(checkpoint, model, optimizer, progress)
    if progress.best.weights is not None:
        model.set_weights(progress.best.weights)
    return progress.history


def _run_epoch(
    graphs: EpochGraphs, source: Source, validation: Source, settings: Settings, number: int
) -> Epoch:
    clock = Clock()
    order = epoch_order(source.count, settings.seed, number)
    title = f"{settings.phase} epoch {number + 1}/{settings.epochs}"
    progress = ProgressReporter(title, source.count)
    loss, accuracy = run_epoch(
        graphs, source, order, number, settings.class_weights, train=True, progress=progress
    )
    validation_loss, validation_accuracy = _measure(graphs, validation)
    return Epoch(
        phase=settings.phase,
        epoch=number,
        loss=float(loss),
        accuracy=float(accuracy),
        validation_loss=validation_loss,
        validation_accuracy=validation_accuracy,
        seconds=clock.seconds,
    )


def _measure(graphs: EpochGraphs, validation: Source) -> tuple[float, float]:
    order = np.arange(validation.count)
    loss, accuracy = run_epoch(graphs, validation, order, 0, None, train=False)
    return float(loss), float(accuracy)


@contextlib.contextmanager
def use_averaged_weights(model: keras.Model, optimizer: Any, settings: Settings) -> Iterator[None]:
    """Replace the weights by their moving average, if there is one, while the body runs."""
    if not settings.ema_momentum:
        yield
        return
    variables = model.trainable_variables
    current = [variable.numpy() for variable in variables]
    optimizer.finalize_variable_values(variables)
    yield
    for variable, values in zip(variables, current, strict=True):
        variable.assign(values)


def _check_agreement(done: int, checkpoint: Path) -> None:
    """Check that all machines found the same checkpoint, or none."""
    strategy = tf.distribute.get_strategy()
    replicas = strategy.num_replicas_in_sync
    if replicas == 1:
        return
    counts = strategy.run(lambda: tf.constant(done))
    total = int(strategy.reduce(tf.distribute.ReduceOp.SUM, counts, axis=None))
    if total != done * replicas:
        raise InputError(
            f"expected the checkpoint in {checkpoint} on every machine, this one has {done} "
            f"epochs, all together {total}: --work-dir must be shared by all"
        )


def _finished(progress: Progress, settings: Settings) -> bool:
    done = len(progress.history)
    waited = done - 1 - progress.best.epoch
    stop_early = settings.patience is not None and done > 0 and waited >= settings.patience
    return done >= settings.epochs or stop_early


def _record_epoch(
    epoch: Epoch, model: keras.Model, progress: Progress, settings: Settings, floor: float
) -> None:
    """Append an epoch to the history and keep its weights if it is the best so far."""
    for name, loss in ("loss", epoch.loss), ("validation loss", epoch.validation_loss):
        if not np.isfinite(loss):
            raise RegraftError(
                f"{epoch.phase}: the {name} became {loss} in epoch {epoch.epoch + 1}; "
                "a lower learning rate usually helps"
            )
    progress.history.append(epoch)
    if epoch.validation_loss < progress.best.loss and epoch.validation_accuracy >= floor:
        progress.best = Best(epoch.validation_loss, epoch.epoch, model.get_weights())
    log_progress(
        f"{epoch.phase} epoch {epoch.epoch + 1}/{settings.epochs}: loss {epoch.loss:.4f}, "
        f"validation accuracy {epoch.validation_accuracy:.4f} ({epoch.seconds:.1f} s)"
    )


def _optimizer(settings: Settings, steps: int) -> Any:
    adam = LayerwiseAdam(
        _schedule(settings, steps), clipnorm=settings.gradient_clip,
        use_ema=settings.ema_momentum > 0.0, ema_momentum=settings.ema_momentum,
        lr_ratios=settings.lr_ratios,
    )  # fmt: skip
    # bfloat16 has the range of float32, so no gradient becomes 0.
    return keras.optimizers.LossScaleOptimizer(adam) if settings.half == "float16" else adam


def _schedule(settings: Settings, steps: int) -> Any:
    """Return the learning rate, or its schedule: linear warm-up, then cosine decay."""
    if not settings.cosine_decay:
        return settings.learning_rate
    total = steps * settings.epochs
    warm_up = max(int(settings.warm_up_fraction * total), 1)
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=settings.learning_rate / warm_up,
        decay_steps=max(total - warm_up, 1),
        warmup_target=settings.learning_rate,
        warmup_steps=warm_up,
    )
