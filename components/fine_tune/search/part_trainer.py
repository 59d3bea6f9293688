"""Trains one part of a search for some time, from any weights of the whole model."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.fine_tune.part_training import averaging_momentum
from components.fine_tune.search.search_space import TrainedPart
from components.fine_tune.strategies import Parts, model_and_data, shared_settings, unfreeze
from components.fine_tune.training_precision import choose_precision
from regraft_core.formats.manifest_storage import digest_of
from regraft_core.formats.options.fine_tune import FineTuneOptions
from regraft_core.runtime.errors import RegraftError
from regraft_core.training.checkpoint import checkpoint_folder
from regraft_core.training.loop import Trainer
from regraft_core.training.mixed_precision import accelerate
from regraft_core.training.timed_training import Limit, Timed, TimedTrainer


class PartTrainer:
    """The trainings of a part, which may differ in rate and length."""

    def __init__(
        self, part: TrainedPart, parts: Parts, options: FineTuneOptions, seconds: float,
        sample: NDArray[np.int64], now: Callable[[], float],
    ) -> None:  # fmt: skip
        """Build the model of the part, whose weights are those of the head, and measure it.

        `seconds` is about the time that its trainings may take.
        """
        start = now()
        self._part, self.parts, self._options = part, part.of(parts), options
        self.precision = choose_precision(self.parts, part.strategy, options, seconds)
        with self._accelerated():
            self._build(sample, now)
        self.start_s = now() - start

    def _build(self, sample: NDArray[np.int64], now: Callable[[], float]) -> None:
        part, options, half = self._part, self._options, self.precision.half
        model, source, validation = model_and_data(self.parts, part.strategy, options.seed)
        self._whole_steps = -(-source.count // options.batch_size)
        self._unfreeze()
        settings = shared_settings(self.parts, part.strategy, options, model, source.count, half)
        fingerprint = digest_of([settings.fingerprint, part.cut, part.views.name])
        self._settings = replace(settings, fingerprint=fingerprint)
        self._trainer = Trainer(model, source, validation, self._settings)
        self._timed = TimedTrainer(self._trainer, self._settings, sample, now)
        self.head_losses: NDArray[np.float32] = self._timed.start[:, 0]
        if not np.isfinite(self.head_losses).all():
            raise RegraftError(f"{part.name}: the validation loss of the head is not finite")

    @property
    def step_s(self) -> float:
        """The seconds of a step."""
        return self._timed.step_s

    @property
    def measure_s(self) -> float:
        """The seconds of a measurement."""
        return self._timed.measure_s

    @property
    def epoch_steps(self) -> int:
        """The steps of a pass over all images."""
        return self._timed.epoch_steps

    def train(
        self, weights: list[Any], rate: float, limit: Limit, first: int, number: int
    ) -> Timed:
        """Train from `weights` of the whole model, which then has those with the lowest loss.

        Args:
            weights: of the whole model.
            rate: peak of the learning rate.
            limit: when it ends.
            first: the steps that `weights` were trained with.
            number: of the training in the search.

        Raises:
            DivergedError: the loss is not finite.
        """
        self.parts.complete.set_weights(weights)
        self._unfreeze()
        steps = min(limit.steps, max(int(limit.seconds / self.step_s), 1))
        fingerprint = digest_of([self._settings.fingerprint, rate, first, number])
        settings = replace(
            self._settings, learning_rate=rate, fingerprint=fingerprint,
            ema_momentum=averaging_momentum(self._options, steps),
        )  # fmt: skip
        folder = checkpoint_folder(self._options.work_dir, "fine_tune-trial", fingerprint)
        with self._accelerated():
            return self._timed.train(settings, limit, first, folder)

    def measure(self, weights: list[Any], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return losses and correctness of validation images with `weights`."""
        self.parts.complete.set_weights(weights)
        with self._accelerated():
            measured: NDArray[np.float32] = self._trainer.measure(rows)
        return measured

    def _accelerated(self) -> contextlib.AbstractContextManager[None]:
        """Return a context in which graphs are built in the precision of the part."""
        return accelerate(self.parts.backbone.layers, self.precision.half)

    def _unfreeze(self) -> None:
        """Make the part trainable; another part may have been trained since."""
        unfreeze(self.parts, self._part.strategy, self._options, self._whole_steps)
