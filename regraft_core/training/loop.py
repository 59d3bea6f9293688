"""The training loop: order, learning rate schedule, early stopping, resuming, NaN check.

The order of an epoch depends only on the seed and the epoch, so a resumed training takes the same
steps as an uninterrupted one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from regraft_core.formats.manifests.model import Epoch
from regraft_core.formats.options.fine_tune import Mix
from regraft_core.formats.options.train_head import ClassWeights
from regraft_core.runtime.errors import InputError, RegraftError
from regraft_core.runtime.step_reports import Clock, ProgressReporter, about_time, log_progress
from regraft_core.training.checkpoint import Best, Progress, restore, save
from regraft_core.training.distribution import is_chief
from regraft_core.training.epoch_graphs import (
    LayerwiseAdam,
    Mixing,
    StartedEpoch,
    compile_epoch_graphs,
    run_epoch,
)
from regraft_core.training.mixed_precision import HalfPrecision
from regraft_core.training.rate_schedule import RateSchedule
from regraft_core.training.training_source import Source, epoch_order, trace_prepare


@dataclass(frozen=True)
class Settings:
    """How to train; `fingerprint` identifies model, data and options for a checkpoint.

    With `several`, images have several labels.
    """

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
    ema_momentum: float | None = None
    lr_ratios: tuple[float, ...] | None = None
    half: HalfPrecision = ""
    mix: Mix = "off"
    several: bool = False


class DivergedError(RegraftError):
    """The loss is not finite."""


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


class Trainer:
    """Trains a model (inputs to logits) in place, perhaps several times, with the same graphs.

    Trainings may differ in their length, learning rate, averaging and seed; each starts from the
    weights that the model has. Under a `tf.distribute` strategy the steps equal those of one
    replica.
    """

    def __init__(
        self, model: keras.Model, source: Source, validation: Source, settings: Settings
    ) -> None:
        """Build the optimizer; the graphs are traced when they first run."""
        self._model, self._phase = model, settings.phase
        self._source, self._validation = trace_prepare(source), trace_prepare(validation)
        self._schedule = RateSchedule(cosine_decay=settings.cosine_decay)
        self._optimizer = _optimizer(settings, self._schedule)
        self._optimizer.build(model.trainable_variables)
        self._seed = tf.Variable(settings.seed, trainable=False, dtype=tf.int32)
        self._graphs = compile_epoch_graphs(
            model, self._optimizer, settings.batch_size, settings.classes, settings.label_smoothing,
            Mixing(settings.mix, self._seed), several=settings.several,
        )  # fmt: skip
        weights = {id(variable) for variable in model.weights}
        # The random state of dropout, and the loss scale of float16.
        state = [one for one in model.variables if id(one) not in weights]
        state += [one for one in self._optimizer.variables if len(one.shape) == 0]
        self._state = [(variable, variable.numpy()) for variable in state]

    @property
    def model(self) -> keras.Model:
        """The model, which is trained in place."""
        return self._model

    @property
    def optimizer(self) -> Any:
        """The optimizer of all trainings."""
        return self._optimizer

    @property
    def source(self) -> Source:
        """The training data."""
        return self._source

    @property
    def validation(self) -> Source:
        """The validation data."""
        return self._validation

    def measure(self, rows: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """Return the loss of each validation image, and whether it is correct, float32 [n, 2].

        With `rows`, only these images are measured.
        """
        order = np.arange(self._validation.count) if rows is None else rows
        progress = ProgressReporter(f"{self._phase}: validation images", len(order))
        return run_epoch(
            self._graphs, self._validation, order, 0, None, train=False, progress=progress
        )

    def train(
        self, settings: Settings, checkpoint: Path | None = None, start: Start | None = None
    ) -> list[Epoch]:
        """Train the model, restore its best weights, and return the history.

        The best epoch is the one with the lowest validation loss. With `start`, the initial weights
        count too, and an epoch must also keep their accuracy, so that training never ends below its
        start in either.

        Raises:
            DivergedError: the loss is not finite.
            InputError: the checkpoint is damaged, or of another model, dataset or options.
        """
        model, optimizer = self._model, self._optimizer
        self.begin(settings)
        progress = Progress(settings.fingerprint)
        if start is not None:
            progress.best = Best(start.loss, -1, model.get_weights())
        if checkpoint is not None:
            if restore(checkpoint, model, optimizer, progress):
                log_progress(f"{settings.phase}: resumes after epoch {len(progress.history)}")
            _check_agreement(len(progress.history), checkpoint)
        floor = start.accuracy if start is not None else 0.0
        while not _finished(progress, settings):
            clock, number = Clock(), len(progress.history)
            title = f"{settings.phase} epoch {number + 1}/{settings.epochs}"
            order = epoch_order(self._source.count, settings.seed, number)
            reporter = ProgressReporter(title, self._source.count)
            loss, accuracy = self.run(settings, order, number, reporter).tolist()
            with use_averaged_weights(model, optimizer, settings):
                measured = self.measure().mean(axis=0, dtype=np.float64).tolist()
                epoch = Epoch(
                    phase=settings.phase, epoch=number, loss=loss, accuracy=accuracy,
                    validation_loss=measured[0], validation_accuracy=measured[1],
                    seconds=clock.seconds,
                )  # fmt: skip
                _record_epoch(epoch, model, progress, settings, floor)
            if checkpoint is not None and is_chief():
                save(checkpoint, model, optimizer, progress)
        if progress.best.weights is not None:
            model.set_weights(progress.best.weights)
        return progress.history

    def begin(self, settings: Settings) -> None:
        """Forget the last training: steps, moments, averages and random state."""
        for variable in self._optimizer.variables:
            variable.assign(np.zeros(variable.shape, variable.dtype))
        for variable, value in self._state:
            variable.assign(value)
        self.plan(settings, settings.epochs * -(-self._source.count // settings.batch_size))
        adam = getattr(self._optimizer, "inner_optimizer", self._optimizer)
        adam.ema_momentum.assign(settings.ema_momentum or 0.0)
        self._seed.assign(settings.seed)

    def plan(self, settings: Settings, steps: int) -> None:
        """Set the learning rate's schedule for a training of so many steps."""
        warm_up = int(settings.warm_up_fraction * steps)
        self._schedule.set(settings.learning_rate, warm_up, steps)

    def run(
        self, settings: Settings, order: NDArray[np.int64], epoch: int,
        progress: Callable[[int], None] = lambda done: None,
    ) -> NDArray[np.float32]:  # fmt: skip
        """Train on the rows in `order`, as those of an epoch; return mean loss and accuracy."""
        return run_epoch(
            self._graphs, self._source, order, epoch, settings.class_weights, train=True,
            progress=progress,
        )  # fmt: skip

    def open(self, settings: Settings, order: NDArray[np.int64], epoch: int) -> StartedEpoch:
        """Start to read the rows in `order`, as those of an epoch, to train on them in parts."""
        return StartedEpoch(self._graphs, self._source, order, epoch, settings.class_weights)


@contextlib.contextmanager
def use_averaged_weights(model: keras.Model, optimizer: Any, settings: Settings) -> Iterator[None]:
    """Replace the weights by their moving average, if there is one, while the body runs."""
    if settings.ema_momentum is None:
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
            raise DivergedError(
                f"{epoch.phase}: the {name} became {loss} in epoch {epoch.epoch + 1}; "
                "a lower learning rate usually helps"
            )
    progress.history.append(epoch)
    if epoch.validation_loss < progress.best.loss and epoch.validation_accuracy >= floor:
        progress.best = Best(epoch.validation_loss, epoch.epoch, model.get_weights())
    left_s = (settings.epochs - epoch.epoch - 1) * epoch.seconds
    left = f", up to {about_time(left_s)} left" if left_s else ""
    log_progress(
        f"{epoch.phase} epoch {epoch.epoch + 1}/{settings.epochs}: loss {epoch.loss:.4f}, "
        f"validation accuracy {epoch.validation_accuracy:.4f} ({epoch.seconds:.1f} s{left})"
    )


def _optimizer(settings: Settings, schedule: RateSchedule) -> Any:
    averaged = settings.ema_momentum is not None
    adam = LayerwiseAdam(
        schedule, clipnorm=settings.gradient_clip, use_ema=averaged, lr_ratios=settings.lr_ratios
    )
    # bfloat16 has the range of float32, so no gradient becomes 0.
    return keras.optimizers.LossScaleOptimizer(adam) if settings.half == "float16" else adam
