"""Searches the best training that fits in a budget: short ones of each part, then longer ones."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.fine_tune.rate_search import LEARNING_RATES
from components.fine_tune.search.budget import Budget
from components.fine_tune.search.part_trainer import PartTrainer
from components.fine_tune.search.plan import Series, choose_next, is_short_of_time
from components.fine_tune.search.search_space import TrainedPart, find_parts
from components.fine_tune.search.search_state import Best, SearchState
from components.fine_tune.search.trials import HEADING, Trial, series_of, trainings_of
from components.fine_tune.strategies import Parts
from components.fine_tune.training_precision import half_precision, is_measured
from regraft_core.formats.manifest_storage import digest_of
from regraft_core.formats.manifests.model import Epoch
from regraft_core.formats.options.fine_tune import FineTuneOptions
from regraft_core.formats.options.option_types import MACHINE_OPTIONS
from regraft_core.runtime.step_reports import log_progress
from regraft_core.training.feature_store import FeatureRows
from regraft_core.training.loop import DivergedError
from regraft_core.training.paired_losses import PairedLosses, compare_losses, room_below
from regraft_core.training.timed_training import Limit

# Fraction of the time for the first trainings of all parts; the second ones take about as long.
FIRST_FRACTION = 0.06
MIN_STEPS = 16
# Measuring more validation images than these takes longer than it helps to compare trainings.
SAMPLE = 2000
# A first guess of the seconds to build and trace the model of a step.
START_S = 10.0
TIME_OVER, NOTHING_MORE = "the time was over", "there was nothing more to try"
NO_ROOM = (
    "even a model without any loss would not be significantly better than the head on validation"
)


@dataclass(frozen=True)
class Winner:
    """The best training: losses and accuracy on all validation images."""

    part: TrainedPart
    trainings: list[Trial]
    loss: float
    accuracy: float
    against_head: PairedLosses

    @property
    def learning_rate(self) -> float:
        """The learning rate of the last training."""
        return self.trainings[-1].learning_rate

    @property
    def history(self) -> list[Epoch]:
        """The learning curve of all its trainings."""
        epochs = [epoch for trial in self.trainings for epoch in trial.history]
        return [epoch.model_copy(update={"epoch": number}) for number, epoch in enumerate(epochs)]


class Search:
    """A search from the solved head, whose weights `parts` has.

    `space` are the parts that it may train, `trials` its trainings; `stopped` says why it ended.

    Args:
        parts: the input of fine-tuning.
        options: of the step.
        budget: the time; its last `reserve` seconds are left for the candidate.
        reserve: these seconds.
        now: the clock.
    """

    def __init__(
        self, parts: Parts, options: FineTuneOptions, budget: Budget, reserve: float,
        now: Callable[[], float] = time.perf_counter,
    ) -> None:  # fmt: skip
        self.parts, self._options = parts, options
        self._budget, self._reserve, self._now = budget, reserve, now
        self.head_weights = parts.complete.get_weights()
        self.space = find_parts(parts)
        self._trainers: dict[TrainedPart, PartTrainer] = {}
        self._head_loss = parts.head.validation_loss
        labels = FeatureRows(parts.folders, "validation", parts.head.head["pooling"]).labels
        order = np.random.default_rng(options.seed).permutation(len(labels))
        self._all, self._sample = np.arange(len(labels)), np.sort(order[:SAMPLE])
        used = options.model_dump(exclude={*MACHINE_OPTIONS, "precision"})
        space = [parts.cached, *(asdict(part) for part in self.space)]
        half = "measured" if is_measured(options) else half_precision(options)
        self._state = SearchState.open(
            options,
            digest_of([parts.head.digest, parts.features.digest, space, used, half]),
            len(self.head_weights),
        )
        budget.resume(self._state.seconds)
        rate = options.learning_rate
        self._rates: tuple[float, ...] = LEARNING_RATES if rate == "auto" else (rate,)
        trainings = len(self.space) * len(self._rates)
        self._first_s = FIRST_FRACTION * max(self._left, 0.0) / trainings
        self._out_of_time, self.stopped = False, ""

    @property
    def precisions(self) -> dict[str, Any]:
        """The precisions of the parts in which both were measured, by name."""
        found = {part.name: one.precision.measurements() for part, one in self._trainers.items()}
        return {part: measured for part, measured in found.items() if measured}

    @property
    def trials(self) -> list[Trial]:
        """All trainings so far."""
        return self._state.trials

    def run(self) -> Winner | None:
        """Train until the time is over or nothing is left; None if nothing is below the head.

        The weights of the winner, or those of the head, are in place at the end.
        """
        if self._state.trials:
            log_progress(f"fine_tune search: resumes after {len(self._state.trials)} trainings")
        if self._fits(self.space[0]) and not room_below(self._first_losses).better:
            self.stopped = NO_ROOM
            return self._winner()
        self._start_parts()
        self._go_on()
        short = self._out_of_time or is_short_of_time(self._series(), self._left)
        self.stopped = TIME_OVER if short else NOTHING_MORE
        if not self.trials:
            log_progress(
                "fine_tune search: there is no time for a first training; a budget of about "
                f"{self._budget.used + self._reserve + self._needed(self.space[0]):.0f} s has it"
            )
        return self._winner()

    @property
    def _first_losses(self) -> NDArray[np.float32]:
        return self._trainer(self.space[0]).head_losses

    @property
    def _left(self) -> float:
        return self._budget.left - self._reserve

    def _series(self) -> list[Series]:
        started = {trial.part for trial in self.trials}
        return [
            series
            for part in self.space
            if part.name in started
            for series in series_of(
                part.name, self.trials, self._head_loss, part.all_views, self._longest(part)
            )
        ]

    def _go_on(self) -> None:
        """Train the parts for longer, as long as a gain is expected and fits."""
        while chosen := choose_next(self._series(), self._left, self._head_loss):
            series = chosen.series
            part = next(one for one in self.space if one.name == series.part)
            part = part.with_views(series.views)
            if not self._train(part, series.learning_rate, chosen.steps, series.first):
                self._out_of_time = True
                return

    def _start_parts(self) -> None:
        """Train each part from the head, from that with the fewest layers to all layers."""
        for part in self.space:
            own = [trial for trial in self.trials if trial.part == part.name]
            if not own and not self._fits(part):
                self._out_of_time = True
                return
            steps = own[0].steps if own else self._first_steps(part)
            for rate in self._rates:
                if any(not t.first and t.learning_rate == rate for t in own):
                    continue  # before an interruption
                if not self._has_time(part, steps) or not self._train(part, rate, steps, 0):
                    self._out_of_time = True

    def _first_steps(self, part: TrainedPart) -> int:
        trainer = self._trainer(part)
        return max(min(int(self._first_s / trainer.step_s), trainer.epoch_steps), MIN_STEPS)

    def _longest(self, part: TrainedPart) -> int:
        """Return the most steps of a training that starts from the head."""
        return self._options.fine_tune_epochs * self._trainer(part).epoch_steps

    def _has_time(self, part: TrainedPart, steps: int) -> bool:
        trainer = self._trainer(part)
        return steps * trainer.step_s + trainer.measure_s <= self._left

    def _fits(self, part: TrainedPart) -> bool:
        """Return whether a new part fits; if so, its model is built, which measures its speed."""
        if self._left < self._needed(part):
            return False
        self._trainer(part)
        return self._left >= self._needed(part)

    def _needed(self, part: TrainedPart) -> float:
        """Return the seconds for the first trainings of a part, and as much to go on with one.

        For the first part, those of its trainings suffice, because the time has no better use.
        """
        known = [(self._trainers[one], one) for one in self.space if one in self._trainers]
        needed = max((trainer.start_s for trainer, _ in known), default=START_S)
        if part in self._trainers:
            needed = 0.0
        for trainer, one in known[-1:]:
            step_s = trainer.step_s * part.flops / one.flops
            each = MIN_STEPS * step_s + trainer.measure_s
            needed += (2 if self.trials else 1) * len(self._rates) * each
        return needed

    def _trainer(self, part: TrainedPart) -> PartTrainer:
        if part not in self._trainers:
            self.parts.complete.set_weights(self.head_weights)
            self._trainers[part] = PartTrainer(
                part, self.parts, self._options, self._left / len(self.space), self._sample,
                self._now,
            )  # fmt: skip
        return self._trainers[part]

    def _train(self, part: TrainedPart, rate: float, steps: int, first: int) -> bool:
        """Train a part from the head or its best weights; return whether there was time for it."""
        start = self._budget.used
        trainer = self._trainer(part)
        before = self._state.best[part.name] if first else None
        weights = before.weights if before else self.head_weights
        found, history, gained = None, [], False
        limit = Limit(steps, self._left)
        try:
            done = trainer.train(weights, rate, limit, first, len(self.trials))
        except DivergedError as error:
            log_progress(str(error))
        else:
            if not done.steps:
                return False
            steps, history = done.steps, done.history
            found = compare_losses(done.losses, trainer.head_losses)
            losses = before.losses if before else trainer.head_losses
            gained = compare_losses(done.losses, losses).promising
        trial = Trial(
            part.name, rate, first, steps, steps / trainer.epoch_steps,
            self._budget.used - start, trainer.step_s, trainer.measure_s, gained, found, history,
            part.views.name,
        )  # fmt: skip
        best = max((t.gain for t in self.trials if t.part == part.name and t.gained), default=0.0)
        if gained and trial.gain > best:
            self._state.best[part.name] = Best(self.parts.complete.get_weights(), done.losses)
        self._state.trials.append(trial)
        self._state.save(self._budget.used)
        if len(self.trials) == 1:
            log_progress(f"fine_tune search: {HEADING}")
        log_progress(f"fine_tune search: {trial.row()}; {max(self._left, 0.0):.0f} s left")
        return True

    def _winner(self) -> Winner | None:
        """Return the training with the lowest loss that keeps the head's accuracy, if any."""
        found = [series for series in self._series() if series.first]
        for series in sorted(found, key=lambda series: -series.gain):
            part = next(one for one in self.space if one.name == series.part)
            trainer = self._trainer(part)
            head = trainer.measure(self.head_weights, self._all)
            measured = trainer.measure(self._state.best[part.name].weights, self._all)
            loss, accuracy = measured.mean(axis=0, dtype=np.float64).tolist()
            compared = compare_losses(measured[:, 0], head[:, 0])
            floor = max(self.parts.head.validation_accuracy, float(head[:, 1].mean()))
            if compared.difference < 0 and accuracy >= floor:
                # The best of all trainings is so partly by chance.
                compared = replace(compared, trainings=len(self.trials))
                trainings = trainings_of(series.part, self.trials)
                return Winner(part, trainings, loss, accuracy, compared)
        self.parts.complete.set_weights(self.head_weights)
        return None
