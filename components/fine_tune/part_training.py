"""The training of a strategy, from the solved head: with a given learning rate, or one it finds."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.fine_tune.rate_search import RateSearch, round_epochs, search_rate
from components.fine_tune.strategies import Parts, model_and_data, shared_settings, unfreeze
from regraft_core.backbones.cuts import freeze
from regraft_core.formats.manifest_storage import digest_of
from regraft_core.formats.manifests.model import Epoch
from regraft_core.formats.options.fine_tune import FineTuneOptions
from regraft_core.runtime.errors import RegraftError
from regraft_core.training.checkpoint import checkpoint_folder
from regraft_core.training.loop import Settings, Start, Trainer
from regraft_core.training.mixed_precision import HalfPrecision
from regraft_core.training.paired_losses import PairedLosses, compare_losses, room_below

# With `auto`, the averaged weights are those of about this fraction of the steps.
AVERAGED_FRACTION = 0.1
MAX_MOMENTUM = 0.9999
# A training whose learning rate was chosen ends after this fraction of its epochs without a gain.
PATIENCE_FRACTION = 1 / 3


@dataclass(frozen=True)
class Trained:
    """The training of a part: its epochs, learning rate (None: none was used) and search.

    `best` is the epoch whose weights were kept, None if the head's were. `against_head` are the
    validation losses minus those of the head: of the weights that were kept, or of the best short
    training if the search ended there. `without_room` is what even a model without any loss would
    differ by from the head, if that is so little that nothing was trained.
    """

    history: list[Epoch] = field(default_factory=list)
    best: Epoch | None = None
    learning_rate: float | None = None
    against_head: PairedLosses | None = None
    search: RateSearch | None = None
    without_room: PairedLosses | None = None


def train_strategy(
    parts: Parts, strategy: str, options: FineTuneOptions, half: HalfPrecision = ""
) -> Trained:
    """Train the part of `strategy` in place; it keeps the head's weights if no others are better.

    Layers of the backbone compute in `half`; for float16, the loss is scaled.

    Raises:
        InputError: no cut was chosen when the features were extracted.
        RegraftError: the loss is not finite.
    """
    if strategy == "head":
        freeze(parts.backbone)
        return Trained()
    epochs = options.fine_tune_epochs
    if options.learning_rate != "auto":
        return _Training(parts, strategy, options, half, epochs).run(options.learning_rate, epochs)
    short = round_epochs(epochs)
    training = _Training(parts, strategy, options, half, short)
    room = room_below(training.head_losses)
    if not room.better:
        return Trained(without_room=room)
    search = search_rate(lambda rate: training.try_rate(rate, short), training.head_losses, short)
    if not search.promising:
        return Trained(against_head=search.best.against_head, search=search)
    if options.batch_norm == "adapt":  # its momentum depends on the length
        training = _Training(parts, strategy, options, half, epochs)
    patience = max(round(epochs * PATIENCE_FRACTION), 1)
    found = training.run(search.best.learning_rate, epochs, patience)
    return replace(found, search=search)


def averaging_momentum(options: FineTuneOptions, steps: int) -> float | None:
    """Return the momentum of the averaged weights in a training of `steps`, None for no average."""
    if options.ema_momentum != "auto":
        return options.ema_momentum or None
    momentum = 1.0 - 1.0 / (AVERAGED_FRACTION * steps)
    return float(np.clip(momentum, 0.0, MAX_MOMENTUM)) or None


class _Training:
    """The trainings of a part from the head's weights, which may differ in rate and length."""

    def __init__(
        self, parts: Parts, strategy: str, options: FineTuneOptions, half: HalfPrecision,
        epochs: int,
    ) -> None:  # fmt: skip
        """Prepare trainings of about `epochs` epochs, and measure the head."""
        self._parts, self._options = parts, options
        self._model, source, validation = model_and_data(parts, strategy, options.seed)
        self._steps = -(-source.count // options.batch_size)
        unfreeze(parts, strategy, options, epochs * self._steps)
        self._shared = shared_settings(parts, strategy, options, self._model, source.count, half)
        self._trainer = Trainer(self._model, source, validation, self._shared)
        measured = self._trainer.measure()
        if not np.isfinite(measured).all():
            raise RegraftError(f"{strategy}: the validation loss of the head is not finite")
        self.head_losses: NDArray[np.float32] = measured[:, 0]
        # The head's own were measured on stored features, whose last digits differ.
        self._start = Start(
            min(float(measured[:, 0].mean()), parts.head.validation_loss),
            max(float(measured[:, 1].mean()), parts.head.validation_accuracy),
        )

    def try_rate(self, rate: float, epochs: int) -> NDArray[np.float32]:
        """Train for a few epochs; return the validation losses, and restore the weights."""
        start = self._model.get_weights()
        settings = self._settings(rate, epochs)
        settings = replace(settings, phase=f"{settings.phase} at {rate:.0e}")
        try:
            self._trainer.train(settings, self._checkpoint(settings))
            losses: NDArray[np.float32] = self._trainer.measure()[:, 0]
        finally:
            self._model.set_weights(start)
        return losses

    def run(self, rate: float, epochs: int, patience: int | None = None) -> Trained:
        """Train, and keep the best weights, perhaps the head's."""
        settings = replace(self._settings(rate, epochs), patience=patience)
        history = self._trainer.train(settings, self._checkpoint(settings), self._start)
        better = [epoch for epoch in history if epoch.validation_loss < self._start.loss
                  and epoch.validation_accuracy >= self._start.accuracy]  # fmt: skip
        best = min(better, key=lambda epoch: epoch.validation_loss, default=None)
        losses = self._trainer.measure()[:, 0]
        return Trained(history, best, rate, compare_losses(losses, self.head_losses))

    def _settings(self, rate: float, epochs: int) -> Settings:
        momentum = averaging_momentum(self._options, epochs * self._steps)
        return replace(
            self._shared, learning_rate=rate, epochs=epochs, ema_momentum=momentum,
            fingerprint=digest_of([self._shared.fingerprint, rate, epochs]),
        )  # fmt: skip

    def _checkpoint(self, settings: Settings) -> Path | None:
        step = f"fine_tune-{self._shared.phase}-{self._options.batch_norm}"
        return checkpoint_folder(self._options.work_dir, step, settings.fingerprint)
