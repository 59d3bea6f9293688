"""Searches the best training that fits in a budget: short ones of each part, then longer ones."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from components.fine_tune.rate_search import LEARNING_RATES
from components.fine_tune.search.budget import Budget
from components.fine_tune.search.part_trainer import PartTrainer
from components.fine_tune.search.plan import Series, choose_next, fits_any
from components.fine_tune.search.search_space import TrainedPart, find_parts
from components.fine_tune.search.search_state import Best, SearchState
from components.fine_tune.search.trials import HEADING, Trial, series_of, trainings_of
from components.fine_tune.strategies import Parts
from regraft_core.formats.manifest_storage import digest_of
from regraft_core.formats.manifests import Epoch
from regraft_core.formats.options import MACHINE_OPTIONS, FineTuneOptions
from regraft_core.runtime.step_reports import log_progress
from regraft_core.training.feature_store import FeatureRows
from regraft_core.training.loop import DivergedError
from regraft_core.training.mixed_precision import HalfPrecision
from regraft_core.training.paired_losses import PairedLosses, compare_losses
from regraft_core.training.timed_training import Limit

# Fraction of the time for the first trainings of all parts; those of a good part are not lost.
PROBE_FRACTION = 0.15
MIN_STEPS = 16
# Measuring more validation images than these takes longer than it helps to compare trainings.
SAMPLE = 2000
# A first guess of the seconds to build and trace the model of a step.
START_S = 10.0
TIME_OVER, NOTHING_MORE = "the time was over", "there was nothing more to try"


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
        half: half precision, if any.
        budget: the time; its last `reserve` seconds are left for the candidate.
        reserve: these seconds.
        now: the clock.
    """

    def __init__(
        self, parts: Parts, options: FineTuneOptions, half: HalfPrecision, budget: Budget,
        reserve: float, now: Callable[[], float] = time.perf_counter,
    ) -> None:  # fmt: skip
        self.parts, self._options, self._half = parts, options, half
        self._budget, self._reserve, self._now = budget, reserve, now
        self.head_weights = parts.complete.get_weights()
        self.space = find_parts(parts)
        self._trainers: dict[str, PartTrainer] = {}
        self._head_loss = parts.head.validation_loss
        labels = FeatureRows(parts.folders, "validation", parts.head.head["pooling"]).labels
        order = np.random.default_rng(options.seed).permutation(len(labels))
        self._all, self._sample = np.arange(len(labels)), np.sort(order[:SAMPLE])
        used = options.model_dump(exclude={*MACHINE_OPTIONS, "precision"})
        self._state = SearchState.open(
            options,
            digest_of([parts.head.digest, parts.features.digest, parts.cached, used, half]),
            len(self.head_weights),
        )
        budget.resume(self._state.seconds)
        self.stopped = ""

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
        self._probe_all()
        while not self.stopped and (
            chosen := choose_next(self._series(), self._left, self._head_loss)
        ):
            part = next(one for one in self.space if one.name == chosen.series.part)
            limit = Limit(chosen.steps, self._left)
            self._train(part, chosen.series.learning_rate, limit, chosen.series.steps)
        if not self.stopped:
            found = self._series()
            going = any(not one.end for one in found) and not fits_any(found, self._left)
            self.stopped = TIME_OVER if going else NOTHING_MORE
        return self._winner()

    @property
    def _left(self) -> float:
        return self._budget.left - self._reserve

    def _series(self) -> list[Series]:
        found = (series_of(part.name, self.trials) for part in self.space)
        return [series for series in found if series is not None]

    def _probe_all(self) -> None:
        """Train each part for a short time, from that with the fewest layers to all layers."""
        rates = len(self._rates(self.space[0]))
        probes = rates + (len(self.space) - 1) * min(rates, 2)
        seconds = PROBE_FRACTION * max(self._left, 0.0) / probes
        for part in self.space:
            if not any(trial.part == part.name for trial in self.trials):
                if not self._fits(part):
                    return
                self._trainer(part)  # measures its speed
                if not self._fits(part):
                    return
            for rate in self._rates(part):
                own = [t for t in self.trials if t.part == part.name and not t.first]
                if not self.stopped and not any(t.learning_rate == rate for t in own):
                    # All of a part have the same length, also after an interruption.
                    steps = own[0].steps if own else self._probe_steps(part, seconds)
                    self._train(part, rate, Limit(steps, self._left), 0)

    def _probe_steps(self, part: TrainedPart, seconds: float) -> int:
        trainer = self._trainer(part)
        return max(min(int(seconds / trainer.step_s), trainer.epoch_steps), MIN_STEPS)

    def _rates(self, part: TrainedPart) -> list[float]:
        """Return the learning rates to try: for a further part, the best so far and its neighbor.

        Parts with more layers need lower rates rather than higher ones.
        """
        if self._options.learning_rate != "auto":
            return [self._options.learning_rate]
        before = [one for one in self._series() if one.part != part.name and one.points]
        if not before:
            return list(LEARNING_RATES)
        best = max(before, key=lambda series: series.gain)
        probes = [t for t in self.trials if t.part == best.part and not t.first]
        rate = max(probes, key=lambda trial: trial.gain).learning_rate
        index = LEARNING_RATES.index(rate)
        return [rate, LEARNING_RATES[index - 1 if index else 1]]

    def _fits(self, part: TrainedPart) -> bool:
        """Return whether the first trainings of a part fit, and as much again to go on with one."""
        known = [(self._trainers[p.name], p) for p in self.space if p.name in self._trainers]
        needed = max((trainer.start_s for trainer, _ in known), default=START_S)
        if part.name in self._trainers:
            needed = 0.0
        for trainer, one in known[-1:]:
            step_s = trainer.step_s * part.flops / one.flops
            needed += 2 * len(self._rates(part)) * (MIN_STEPS * step_s + trainer.measure_s)
        if needed <= self._left:
            return True
        self.stopped = TIME_OVER
        if not self.trials:
            log_progress(
                "fine_tune search: there is no time for a first training; a budget of about "
                f"{self._budget.used + self._reserve + needed:.0f} s has it"
            )
        return False

    def _trainer(self, part: TrainedPart) -> PartTrainer:
        if part.name not in self._trainers:
            self.parts.complete.set_weights(self.head_weights)
            self._trainers[part.name] = PartTrainer(
                part, self.parts, self._options, self._half, self._sample, self._now
            )
        return self._trainers[part.name]

    def _train(self, part: TrainedPart, rate: float, limit: Limit, first: int) -> None:
        """Train a part, from the head or from its best weights, and record the result."""
        trainer = self._trainer(part)
        before = self._state.best[part.name] if first else None
        weights = before.weights if before else self.head_weights
        start = self._budget.used
        found, history, steps, gained = None, [], 0, False
        try:
            done = trainer.train(weights, rate, limit, first, len(self.trials))
        except DivergedError as error:
            log_progress(str(error))
        else:
            if not done.steps:
                self.stopped = TIME_OVER
                return
            steps, history = done.steps, done.history
            found = compare_losses(done.losses, trainer.head_losses)
            losses = before.losses if before else trainer.head_losses
            gained = compare_losses(done.losses, losses).promising
        trial = Trial(
            part.name, rate, first, steps, steps / trainer.epoch_steps, self._budget.used - start,
            trainer.step_s, trainer.measure_s, gained, found, history,
        )  # fmt: skip
        best = max((t.gain for t in self.trials if t.part == part.name and t.gained), default=0.0)
        if gained and trial.gain > best:
            self._state.best[part.name] = Best(self.parts.complete.get_weights(), done.losses)
        self._state.trials.append(trial)
        self._state.save(self._budget.used)
        if len(self.trials) == 1:
            log_progress(f"fine_tune search: {HEADING}")
        log_progress(f"fine_tune search: {trial.row()}; {max(self._left, 0.0):.0f} s left")

    def _winner(self) -> Winner | None:
        """Return the training with the lowest loss that keeps the head's accuracy, if any."""
        found = [series for series in self._series() if series.points]
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
                trainings = trainings_of(series, self.trials)
                return Winner(part, trainings, loss, accuracy, compared)
        self.parts.complete.set_weights(self.head_weights)
        return None
