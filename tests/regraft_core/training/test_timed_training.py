"""Trainings that end on time, with a clock that goes on with their steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from regraft_core.training.epoch_graphs import StartedEpoch
from regraft_core.training.loop import DivergedError, Settings, Trainer
from regraft_core.training.timed_training import Limit, Timed, TimedTrainer
from regraft_core.training.training_source import Batch, Source

SETTINGS = Settings(
    phase="top", epochs=0, batch_size=8, learning_rate=0.05, seed=3, classes=3, cosine_decay=True,
    warm_up_fraction=0.1, ema_momentum=0.5, fingerprint="model, data, options",
)  # fmt: skip
SAMPLE = np.arange(0, 20, 2)


class Clock:
    """Seconds that go on with each step; `opened` are the rows that were begun to be read.

    It interrupts the training after `stop` steps.
    """

    def __init__(self, stop: int = 1 << 30) -> None:
        self.seconds, self.step_s, self.stop = 0.0, 1.0, stop
        self.steps, self.opened = 0, list[list[int]]()

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def make(
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[Clock], tuple[keras.Model, TimedTrainer]]:
    """A factory of a model and its trainer on 40 images, in the time of a clock."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 60).astype(np.int32)
    inputs = (np.eye(3)[labels] + rng.normal(0, 0.3, (60, 3))).astype(np.float32)
    train, start = StartedEpoch.train, Trainer.open

    def source(start: int, end: int) -> Source:
        def fetch(indices: Any, epoch: int) -> Batch:
            return inputs[start:end][indices], labels[start:end][indices]

        return Source(end - start, fetch, tf.TensorSpec([None, 3], tf.float32))

    def build(clock: Clock) -> tuple[keras.Model, TimedTrainer]:
        def timed(self: StartedEpoch, steps: int) -> Any:
            if clock.steps >= clock.stop:
                raise InterruptedError
            clock.seconds, clock.steps = clock.seconds + steps * clock.step_s, clock.steps + steps
            return train(self, steps)

        def noted(self: Trainer, settings: Settings, order: Any, epoch: int) -> StartedEpoch:
            clock.opened.append(order.tolist())
            return start(self, settings, order, epoch)

        monkeypatch.setattr(StartedEpoch, "train", timed)
        monkeypatch.setattr(Trainer, "open", noted)
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3)])
        trainer = Trainer(model, source(0, 40), source(40, 60), SETTINGS)
        timed_trainer = TimedTrainer(trainer, SETTINGS, SAMPLE, clock)
        clock.opened.clear()
        clock.steps = 0
        return model, timed_trainer

    return build


def test_a_training_ends_with_its_steps_or_its_time(make) -> None:
    clock = Clock()
    model, trainer = make(clock)
    start = model.get_weights()
    assert trainer.step_s == pytest.approx(1.0)
    by_steps = trainer.train(SETTINGS, Limit(12, 1000.0))
    assert (by_steps.steps, clock.steps) == (12, 12)
    assert [sorted(rows) for rows in clock.opened] == [list(range(40))] * 3
    assert len(by_steps.losses) == len(SAMPLE)
    assert by_steps.losses.mean() < trainer.start[:, 0].mean()
    model.set_weights(start)
    assert trainer.train(SETTINGS, Limit(1000, 12.5)).steps == 12


def test_a_slower_machine_ends_on_time_with_fewer_steps(make) -> None:
    clock = Clock()
    _, trainer = make(clock)
    clock.step_s = 3.0
    begin = clock.seconds
    assert trainer.train(SETTINGS, Limit(1000, 30.0)).steps < 12
    assert clock.seconds - begin <= 33.0


def test_a_training_goes_on_with_the_rows_after_those_before(make) -> None:
    clock = Clock()
    _, trainer = make(clock)
    trainer.train(SETTINGS, Limit(4, 1000.0))
    trainer.train(SETTINGS, Limit(1, 1000.0), first=4)
    whole, rest = clock.opened
    assert rest == whole[32:]


def test_an_interrupted_training_resumes_with_its_time(make, tmp_path: Path) -> None:
    def run(name: str, clock: Clock) -> tuple[keras.Model, Timed]:
        model, trainer = make(clock)
        clock.step_s = trainer.step_s = 10.0
        limit = Limit(1000, 300.0)
        return model, trainer.train(SETTINGS, limit, checkpoint=tmp_path / name)

    model, whole = run("whole", Clock())
    assert whole.steps == 30
    with pytest.raises(InterruptedError):
        run("parts", Clock(stop=20))
    clock = Clock()
    resumed, again = run("parts", clock)
    assert clock.steps <= 18, "it has not started again"
    assert (again.steps, len(again.history)) == (whole.steps, len(whole.history))
    for mine, theirs in zip(resumed.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_loss_that_is_not_finite_is_an_error(make) -> None:
    model, trainer = make(Clock())
    model.set_weights([np.full_like(one, np.nan) for one in model.get_weights()])
    with pytest.raises(DivergedError, match="top: the loss is not finite"):
        trainer.train(dataclasses.replace(SETTINGS, learning_rate=1.0), Limit(2, 100.0))
