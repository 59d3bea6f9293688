"""Trainings that end on time, with a clock that goes on with their steps."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from regraft_core.training.loop import DivergedError, Settings, Trainer
from regraft_core.training.timed_training import Limit, Timed, TimedTrainer
from regraft_core.training.training_source import Batch, Source

SETTINGS = Settings(
    phase="top", epochs=0, batch_size=8, learning_rate=0.05, seed=3, classes=3, cosine_decay=True,
    warm_up_fraction=0.1, ema_momentum=0.5, fingerprint="model, data, options",
)  # fmt: skip
SAMPLE = np.arange(0, 20, 2)


class Clock:
    """Seconds that go on with each batch that is read; `rows` are those that were read."""

    def __init__(self) -> None:
        self.seconds, self.batch_s, self.rows = 0.0, 1.0, list[int]()

    def __call__(self) -> float:
        return self.seconds


class Interrupted(Exception):
    pass


def make(clock: Clock) -> tuple[keras.Model, TimedTrainer]:
    """Return a model, and its trainer on 40 images, which reads in the time of `clock`."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 60).astype(np.int32)
    inputs = (np.eye(3)[labels] + rng.normal(0, 0.3, (60, 3))).astype(np.float32)

    def source(start: int, end: int, *, timed: bool) -> Source:
        def fetch(indices: Any, epoch: int) -> Batch:
            if timed:
                clock.seconds += clock.batch_s
                clock.rows.extend(indices.tolist())
            return inputs[start:end][indices], labels[start:end][indices]

        return Source(end - start, fetch, tf.TensorSpec([None, 3], tf.float32))

    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3)])
    data = source(0, 40, timed=True), source(40, 60, timed=False)
    trained = TimedTrainer(Trainer(model, *data, SETTINGS), SETTINGS, SAMPLE, clock)
    clock.rows.clear()
    return model, trained


def test_a_training_ends_with_its_steps_or_its_time() -> None:
    clock = Clock()
    model, trainer = make(clock)
    start = model.get_weights()
    assert trainer.step_s == pytest.approx(1.0)
    by_steps = trainer.train(SETTINGS, Limit(12, 1000.0))
    assert by_steps.steps == 12 == len(clock.rows) / 8
    assert len(set(clock.rows[:40])) == 40, "an epoch reads each image once"
    assert len(by_steps.losses) == len(SAMPLE)
    assert by_steps.losses.mean() < trainer.start[:, 0].mean()
    model.set_weights(start)
    assert trainer.train(SETTINGS, Limit(1000, 12.5)).steps == 12


def test_a_slower_machine_ends_on_time_with_fewer_steps() -> None:
    clock = Clock()
    _, trainer = make(clock)
    clock.batch_s = 3.0
    begin = clock.seconds
    assert trainer.train(SETTINGS, Limit(1000, 30.0)).steps < 12
    assert clock.seconds - begin <= 33.0


def test_a_training_goes_on_with_the_rows_after_those_before() -> None:
    clock = Clock()
    _, trainer = make(clock)
    trainer.train(SETTINGS, Limit(4, 1000.0))
    first = [*clock.rows]
    trainer.train(SETTINGS, Limit(1, 1000.0), first=4)
    assert sorted(clock.rows) == list(range(40)) and clock.rows[:32] == first


def test_an_interrupted_training_resumes_with_its_time(tmp_path: Path) -> None:
    def run(folder: Path, stop: float, clock: Clock) -> tuple[keras.Model, Timed]:
        model, trainer = make(clock)
        clock.batch_s = 10.0
        trainer.step_s = 10.0
        fetch, begin = trainer._source.fetch, clock.seconds

        def interrupted(*arguments: Any) -> Batch:
            if clock.seconds - begin > stop:
                raise Interrupted
            return fetch(*arguments)

        object.__setattr__(trainer._source, "fetch", interrupted)
        return model, trainer.train(SETTINGS, Limit(1000, 300.0), checkpoint=folder)

    model, whole = run(tmp_path / "whole", 1e9, Clock())
    assert whole.steps == 30
    with pytest.raises(Exception, match="Interrupted"):
        run(tmp_path / "parts", 150.0, Clock())
    clock = Clock()
    resumed, again = run(tmp_path / "parts", 1e9, clock)
    assert len(clock.rows) <= 20 * 8
    assert (again.steps, len(again.history)) == (whole.steps, len(whole.history))
    for mine, theirs in zip(resumed.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_loss_that_is_not_finite_is_an_error() -> None:
    model, trainer = make(Clock())
    model.set_weights([np.full_like(one, np.nan) for one in model.get_weights()])
    with pytest.raises(DivergedError, match="top: the loss is not finite"):
        trainer.train(dataclasses.replace(SETTINGS, learning_rate=1.0), Limit(2, 100.0))
