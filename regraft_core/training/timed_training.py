"""A training that ends on time: its length and its schedule follow its measured speed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from regraft_core.formats.manifests.model import Epoch
from regraft_core.runtime.step_reports import ProgressReporter
from regraft_core.training.checkpoint import Best, read_state, write_state
from regraft_core.training.distribution import is_chief
from regraft_core.training.epoch_graphs import StartedEpoch
from regraft_core.training.loop import DivergedError, Settings, Trainer, use_averaged_weights
from regraft_core.training.training_source import Source, epoch_order

# With rows in memory, the graph is traced for each number of rows, so this is always the same.
RESIDENT_STEPS = 8
# With other rows, the clock is checked about so often.
PART_S = 2.0
FIRST_STEPS = 4
CHECKPOINT_S = 60.0
# Validation is measured up to four times, while this takes at most a twentieth of the training.
MAX_MEASUREMENTS = 4
MEASURED_FRACTION = 1 / 20
# Weight of the newest steps in the speed, which follows the load of the machine.
NEWEST = 0.3


@dataclass(frozen=True)
class Limit:
    """The most steps of a training, and the seconds that it may take with its measurements."""

    steps: int
    seconds: float


@dataclass
class Timed:
    """A training so far: its steps, its seconds, and the weights with the lowest loss.

    `losses` are those of the sample of validation images with these weights. `since` are the steps
    since the last measurement, and `sums` their summed loss and accuracy.
    """

    steps: int = 0
    seconds: float = 0.0
    history: list[Epoch] = field(default_factory=list)
    best: Best = field(default_factory=Best)
    losses: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    since: int = 0
    sums: NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))


class TimedTrainer:
    """Trains with a `Trainer` until a number of steps or a time; knows the seconds of a step.

    Validation is measured on a sample of its images.
    """

    def __init__(
        self, trainer: Trainer, settings: Settings, sample: NDArray[np.int64],
        now: Callable[[], float],
    ) -> None:  # fmt: skip
        """Trace the graphs, which takes longer than their steps, and measure the model."""
        self._trainer, self._sample, self._now = trainer, sample, now
        self._batch_size, self._source = settings.batch_size, trainer.source
        self._reading: StartedEpoch | None = None
        self.step_s = 0.0
        weights = trainer.model.get_weights()
        trainer.begin(settings)
        first = Timed()
        for steps in (1, FIRST_STEPS):  # the first starts the pipeline and traces the graph
            self.step_s = 0.0
            self._run(settings, first, 0, self._part(steps))
        self._reading = None
        trainer.model.set_weights(weights)
        trainer.measure(sample if _is_resident(trainer.validation) else sample[:1])
        start = now()
        self.start: NDArray[np.float32] = trainer.measure(sample)
        self.measure_s = now() - start

    @property
    def epoch_steps(self) -> int:
        """The steps of a pass over all rows."""
        return -(-self._source.count // self._batch_size)

    def train(
        self, settings: Settings, limit: Limit, first: int = 0, checkpoint: Path | None = None
    ) -> Timed:
        """Train from the weights of the model, which then has those with the lowest loss.

        The schedule is planned again after each part, so that it ends with the last step that there
        is time for. Averaged weights are measured. With a checkpoint, the seconds of before count.

        Args:
            settings: those of the training; their epochs are not used.
            limit: when it ends.
            first: the steps of trainings that this one continues; it goes on with their rows.
            checkpoint: folder of the state from which an interrupted training resumes.

        Raises:
            DivergedError: the loss is not finite.
            InputError: the checkpoint is damaged, or of another model, dataset or options.
        """
        self._trainer.begin(settings)
        self._reading, done = None, Timed()
        if checkpoint is not None:
            self._restore(checkpoint, settings, done)
        start, saved = self._now() - done.seconds, done.seconds
        progress = ProgressReporter(f"{settings.phase} steps", limit.steps)
        while (total := self._planned(done, limit)) > done.steps:
            self._trainer.plan(settings, total)
            progress.total = total
            self._run(settings, done, first, self._part(total - done.steps))
            if done.steps >= total or self._is_due(done, total, limit):
                self._record(settings, done)
            done.seconds = self._now() - start
            progress(done.steps)
            if checkpoint is not None and done.seconds - saved >= CHECKPOINT_S:
                self._save(checkpoint, settings, done)
                saved = done.seconds
        self._reading = None
        if done.since:
            self._record(settings, done)
        done.seconds = self._now() - start
        if done.best.weights is not None:
            self._trainer.model.set_weights(done.best.weights)
        return done

    def _planned(self, done: Timed, limit: Limit) -> int:
        """Return the steps of the whole training for which there is time."""
        left = limit.seconds - done.seconds - self.measure_s
        return min(limit.steps, done.steps + max(int(left / self.step_s), 0))

    def _part(self, steps: int) -> int:
        """Return the steps until the clock is checked, of those that are left."""
        if _is_resident(self._source):
            return RESIDENT_STEPS
        return min(steps, max(int(PART_S / self.step_s), 1) if self.step_s else FIRST_STEPS)

    def _rows(self, settings: Settings, first: int, steps: int) -> tuple[NDArray[np.int64], int]:
        """Return the rows of steps in an endless order of epochs, and the number of their epoch."""
        count, begin = self._source.count, first * self._batch_size
        end = begin + steps * self._batch_size
        epochs = range(begin // count, -(-end // count))
        rows = np.concatenate([epoch_order(count, settings.seed, epoch) for epoch in epochs])
        offset = epochs[0] * count
        return rows[begin - offset : end - offset], epochs[0]

    def _run(self, settings: Settings, done: Timed, first: int, steps: int) -> None:
        """Train for at most some steps, and note their speed."""
        position = first + done.steps
        start = self._now()
        if _is_resident(self._source):
            order, epoch = self._rows(settings, position, steps)
            found = self._trainer.run(settings, order, epoch)
        else:
            if self._reading is None or not self._reading.steps_left:
                epoch, offset = divmod(position, self.epoch_steps)
                order = epoch_order(self._source.count, settings.seed, epoch)
                rest = order[offset * self._batch_size :]
                self._reading = self._trainer.open(settings, rest, epoch)
            steps = min(steps, self._reading.steps_left)
            found = self._reading.train(steps)
        step_s = (self._now() - start) / steps
        self.step_s = NEWEST * step_s + (1 - NEWEST) * self.step_s if self.step_s else step_s
        done.steps, done.since = done.steps + steps, done.since + steps
        done.sums = done.sums + steps * found.astype(np.float64)

    def _is_due(self, done: Timed, total: int, limit: Limit) -> bool:
        expected = min(limit.seconds, total * self.step_s)
        times = int(
            np.clip(MEASURED_FRACTION * expected / max(self.measure_s, 1e-6), 1, MAX_MEASUREMENTS)
        )
        return done.steps * times >= (len(done.history) + 1) * total

    def _record(self, settings: Settings, done: Timed) -> None:
        """Measure the averaged weights, and keep them if their loss is the lowest so far."""
        trainer = self._trainer
        with use_averaged_weights(trainer.model, trainer.optimizer, settings):
            measured = trainer.measure(self._sample)
            loss, accuracy = measured.mean(axis=0, dtype=np.float64).tolist()
            known = sum(epoch.seconds for epoch in done.history)
            trained = (done.sums / done.since).tolist()
            if not np.isfinite([loss, *trained]).all():
                raise DivergedError(f"{settings.phase}: the loss is not finite")
            epoch = Epoch(
                phase=settings.phase, epoch=len(done.history), loss=trained[0],
                accuracy=trained[1], validation_loss=loss, validation_accuracy=accuracy,
                seconds=max(done.seconds - known, 0.0),
            )  # fmt: skip
            done.history.append(epoch)
            if loss < done.best.loss:
                done.best = Best(loss, epoch.epoch, trainer.model.get_weights())
                done.losses = measured[:, 0]
        done.since, done.sums = 0, np.zeros(2)

    def _save(self, folder: Path, settings: Settings, done: Timed) -> None:
        if not is_chief():
            return
        model, optimizer = self._trainer.model, self._trainer.optimizer
        groups = {
            "variable": [variable.numpy() for variable in model.variables],
            "optimizer": [variable.numpy() for variable in optimizer.variables],
            "best": done.best.weights or [],
            "losses": [done.losses],
        }
        metadata = {
            "steps": done.steps, "seconds": done.seconds, "since": done.since,
            "sums": done.sums.tolist(), "best": [done.best.loss, done.best.epoch],
            "history": [epoch.model_dump() for epoch in done.history], "step_s": self.step_s,
        }  # fmt: skip
        write_state(folder, settings.fingerprint, done.steps, groups, metadata)

    def _restore(self, folder: Path, settings: Settings, done: Timed) -> None:
        model, optimizer = self._trainer.model, self._trainer.optimizer
        variables = {"variable": model.variables, "optimizer": optimizer.variables}
        counts = {"best": len(model.weights), "losses": 1}
        state = read_state(folder, settings.fingerprint, variables, counts)
        if state is None:
            return
        metadata, arrays = state
        done.steps, done.since = metadata["steps"], metadata["since"]
        done.seconds, self.step_s = metadata["seconds"], metadata["step_s"]
        done.sums, done.losses = np.array(metadata["sums"]), arrays["losses"][0]
        done.history = [Epoch(**epoch) for epoch in metadata["history"]]
        loss, number = metadata["best"]
        done.best = Best(loss, number, arrays["best"] or None)


def _is_resident(source: Source) -> bool:
    """Return whether all rows are in memory; several replicas read theirs batch by batch."""
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    return source.resident is not None and replicas == 1
