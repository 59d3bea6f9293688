"""The training loop: order, resuming, early stopping, NaN check, rows in memory."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from regraft_core.formats.manifests.model import Epoch
from regraft_core.formats.options.fine_tune import Mix
from regraft_core.runtime.errors import InputError, RegraftError
from regraft_core.runtime.out_of_memory import explain_out_of_memory
from regraft_core.training.checkpoint import STATE_FILE
from regraft_core.training.loop import Settings, Start, Trainer, _optimizer
from regraft_core.training.rate_schedule import RateSchedule
from regraft_core.training.training_source import Resident, Source, epoch_order

CLASSES = 3
SETTINGS = Settings(
    phase="head", epochs=6, batch_size=8, learning_rate=0.01, seed=3, classes=CLASSES,
    fingerprint="model, data, options",
)  # fmt: skip


def source(inputs: NDArray[np.float32], labels: NDArray[np.int32]) -> Source:
    def fetch(
        indices: NDArray[np.int64], epoch: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        return inputs[indices], labels[indices]

    return Source(len(inputs), fetch, tf.TensorSpec([None, *inputs.shape[1:]], tf.float32))


@pytest.fixture
def data() -> tuple[Source, Source]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, 60).astype(np.int32)
    inputs = (np.eye(CLASSES)[labels] + rng.normal(0, 0.3, (60, CLASSES))).astype(np.float32)
    return source(inputs[:40], labels[:40]), source(inputs[40:], labels[40:])


def head(seed: int = 1) -> keras.Model:
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [keras.Input((CLASSES,)), keras.layers.Dropout(0.3, seed=5), keras.layers.Dense(CLASSES)]
    )


def train(
    model: keras.Model,
    source: Source,
    validation: Source,
    settings: Settings,
    checkpoint: Path | None = None,
    start: Start | None = None,
) -> list[Epoch]:
    return Trainer(model, source, validation, settings).train(settings, checkpoint, start)


def loss_of(model: keras.Model, data: Source) -> float:
    inputs, labels = data.fetch(np.arange(data.count), 0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return float(loss(labels, model(inputs, training=False)))


class Interrupted(Exception):
    pass


def interrupt_in_epoch(data: Source, epoch: int) -> Source:
    def fetch(
        indices: NDArray[np.int64], now: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        if now == epoch:
            raise Interrupted
        return data.fetch(indices, now)

    return dataclasses.replace(data, fetch=fetch)


def test_training_learns_and_keeps_the_best_epoch(data: tuple[Source, Source]) -> None:
    model = head()
    history = train(model, *data, dataclasses.replace(SETTINGS, learning_rate=1.0))
    assert [line.epoch for line in history] == list(range(6))
    losses = [line.validation_loss for line in history]
    best = int(np.argmin(losses))
    assert 0 < best < len(losses) - 1
    assert losses[-1] > losses[best] + 0.01
    assert losses[best] < loss_of(head(), data[1]) / 2
    assert loss_of(model, data[1]) == pytest.approx(losses[best], abs=1e-5)


def test_the_order_depends_only_on_seed_and_epoch() -> None:
    assert epoch_order(10, 1, 2).tolist() == epoch_order(10, 1, 2).tolist()
    assert epoch_order(10, 1, 2).tolist() != epoch_order(10, 1, 3).tolist()
    assert sorted(epoch_order(10, 0, 0).tolist()) == list(range(10))


def test_an_interrupted_training_resumes_and_ends_the_same(
    tmp_path: Path, data: tuple[Source, Source]
) -> None:
    whole = head()
    expected = train(whole, *data, SETTINGS)
    interrupted = head()
    with pytest.raises(Exception, match="Interrupted"):
        train(interrupted, interrupt_in_epoch(data[0], 3), data[1], SETTINGS, tmp_path / "c")
    resumed = head(seed=99)
    history = train(resumed, *data, SETTINGS, tmp_path / "c")
    assert [line.epoch for line in history] == [line.epoch for line in expected]
    for ours, theirs in zip(history, expected, strict=True):
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-5)
    for ours, theirs in zip(resumed.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_a_finished_training_is_not_run_again(tmp_path: Path, data: tuple[Source, Source]) -> None:
    model = head()
    train(model, *data, SETTINGS, tmp_path / "c")
    again = head(seed=99)
    history = train(again, interrupt_in_epoch(data[0], 0), data[1], SETTINGS, tmp_path / "c")
    assert len(history) == SETTINGS.epochs
    for ours, theirs in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_early_stopping(data: tuple[Source, Source]) -> None:
    model = head()
    settings = dataclasses.replace(SETTINGS, epochs=500, patience=2, learning_rate=0.5)
    losses = [line.validation_loss for line in train(model, *data, settings)]
    assert int(np.argmin(losses)) == len(losses) - 1 - 2
    assert len(losses) < 500
    assert losses[-1] > min(losses) + 1e-3
    assert loss_of(model, data[1]) == pytest.approx(min(losses), abs=1e-5)


def test_a_worse_training_keeps_the_start(data: tuple[Source, Source]) -> None:
    model = head()
    before = model.get_weights()
    train(model, *data, dataclasses.replace(SETTINGS, learning_rate=10.0), start=Start(1e-9, 1.0))
    for ours, theirs in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_averaged_weights_are_kept_and_resumed(tmp_path: Path, data: tuple[Source, Source]) -> None:
    """The average is kept, while training itself continues from the current weights."""
    settings = dataclasses.replace(SETTINGS, ema_momentum=0.9)
    whole, plain = head(), head()
    history = train(whole, *data, settings)
    train(plain, *data, SETTINGS)
    assert np.abs(whole.get_weights()[0] - plain.get_weights()[0]).max() > 1e-4
    interrupted = head()
    with pytest.raises(Exception, match="Interrupted"):
        train(interrupted, interrupt_in_epoch(data[0], 3), data[1], settings, tmp_path / "c")
    resumed = head(seed=99)
    again = train(resumed, *data, settings, tmp_path / "c")
    assert [line.loss for line in again] == pytest.approx([line.loss for line in history])
    for ours, theirs in zip(resumed.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_a_second_training_forgets_the_first(tmp_path: Path, data: tuple[Source, Source]) -> None:
    """The same graphs train with another length, rate and average as graphs of their own."""
    averaged = dataclasses.replace(SETTINGS, cosine_decay=True, ema_momentum=0.5)
    second = dataclasses.replace(averaged, epochs=3, learning_rate=0.05, ema_momentum=0.9)
    model, alone = head(), head()
    start = model.get_weights()
    trainer = Trainer(model, *data, averaged)
    first = trainer.train(averaged)
    model.set_weights(start)
    again = trainer.train(second)
    expected = train(alone, *data, second)
    assert [line.loss for line in again] != [line.loss for line in first[:3]]
    assert [line.loss for line in again] == pytest.approx([line.loss for line in expected])
    for ours, theirs in zip(model.get_weights(), alone.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("mix", ["mixup", "cutmix"])
def test_mixed_rows_depend_on_seed_and_step_and_a_resumed_training_has_the_same(
    tmp_path: Path, data: tuple[Source, Source], mix: Mix
) -> None:
    """Also from rows in memory, and in a second training of the same graphs."""
    settings = dataclasses.replace(SETTINGS, mix=mix, class_weights=(1.0, 2.0, 3.0))
    whole, other = head(), head()
    start = whole.get_weights()
    trainer = Trainer(whole, *data, settings)
    expected = [line.loss for line in trainer.train(settings)]
    weights = whole.get_weights()
    plain = train(head(), *data, dataclasses.replace(settings, mix="off"))
    assert expected[0] != pytest.approx(plain[0].loss, rel=1e-3)
    reseeded = [
        line.loss
        for line in train(other, *data, dataclasses.replace(settings, seed=SETTINGS.seed + 1))
    ]
    assert reseeded != pytest.approx(expected, rel=1e-3)
    whole.set_weights(start)
    trainer.train(dataclasses.replace(settings, seed=SETTINGS.seed + 1))
    whole.set_weights(start)
    again = [line.loss for line in trainer.train(settings)]
    assert again == pytest.approx(expected, rel=1e-5)
    interrupted, resumed = head(), head(seed=99)
    with pytest.raises(Exception, match="Interrupted"):
        train(interrupted, interrupt_in_epoch(data[0], 3), data[1], settings, tmp_path / "c")
    history = train(resumed, *data, settings, tmp_path / "c")
    assert [line.loss for line in history] == pytest.approx(expected, rel=1e-5)
    inputs, labels = data[0].fetch(np.arange(data[0].count), 0)
    resident = Resident(tf.constant(inputs), tf.constant(labels))
    held = head()
    train(held, dataclasses.replace(data[0], resident=resident), data[1], settings)
    for ours in (resumed, held):
        for mine, theirs in zip(ours.get_weights(), weights, strict=True):
            np.testing.assert_allclose(mine, theirs, atol=1e-5)


def test_a_pass_over_the_validation_images_is_counted(
    data: tuple[Source, Source], reported: Callable[[], dict[str, str]]
) -> None:
    Trainer(head(), *data, SETTINGS).measure()
    assert reported() == {"head: validation images": "16 of 20"}  # of the last batch


def test_an_epoch_tells_how_long_the_others_take(
    data: tuple[Source, Source], capsys: pytest.CaptureFixture[str]
) -> None:
    train(head(), *data, dataclasses.replace(SETTINGS, epochs=2))
    first, last = capsys.readouterr().out.splitlines()
    assert re.search(r"s, up to \d+ s left\)$", first)
    assert last.endswith("s)") and "left" not in last


def test_each_validation_image_is_measured_in_its_order(data: tuple[Source, Source]) -> None:
    model = head()
    inputs, labels = data[1].fetch(np.arange(data[1].count), 0)
    resident = dataclasses.replace(
        data[1], resident=Resident(tf.constant(inputs), tf.constant(labels))
    )
    logits = model(inputs, training=False).numpy()
    losses = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
    for validation in (data[1], resident):
        measured = Trainer(model, data[0], validation, SETTINGS).measure()
        np.testing.assert_allclose(measured[:, 0], losses, atol=1e-6)
        np.testing.assert_array_equal(measured[:, 1], logits.argmax(axis=1) == labels)


def test_a_learning_rate_ratio_for_each_variable(data: tuple[Source, Source]) -> None:
    model = head()
    before = model.get_weights()
    train(model, *data, dataclasses.replace(SETTINGS, lr_ratios=(0.0, 1.0)))
    kernel, bias = model.get_weights()
    np.testing.assert_array_equal(kernel, before[0])
    assert np.abs(bias - before[1]).max() > 1e-3


def test_rows_in_memory_train_the_same_as_fetched_rows(
    data: tuple[Source, Source],
) -> None:
    """With two views, so that the choice of the view is compared too."""
    rng = np.random.default_rng(1)
    views = rng.normal(0, 1, (2, 30, CLASSES)).astype(np.float32)
    labels = rng.integers(0, CLASSES, 30).astype(np.int32)

    def fetch(
        indices: NDArray[np.int64], epoch: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        return views[(epoch + indices) % 2, indices], labels[indices]

    fetched = Source(30, fetch, tf.TensorSpec([None, CLASSES], tf.float32))
    resident = Resident(tf.constant(views.reshape(60, CLASSES)), tf.constant(labels), views=2)
    in_memory = dataclasses.replace(fetched, resident=resident)
    weighted = dataclasses.replace(SETTINGS, class_weights=(1.0, 2.0, 3.0))
    models = head(), head()
    curves = [train(model, rows, data[1], weighted)
              for model, rows in zip(models, (fetched, in_memory), strict=True)]  # fmt: skip
    assert [line.loss for line in curves[0]] == pytest.approx([line.loss for line in curves[1]])
    for ours, theirs in zip(models[0].get_weights(), models[1].get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


BATCHES_THAT_FIT = 7


class NeedsTooMuch(keras.layers.Layer):
    """Allocates more memory than any machine has, from the second epoch of training on."""

    def build(self, input_shape: object) -> None:
        self.batches = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        self.batches.assign_add(float(training))
        count = tf.where(self.batches > BATCHES_THAT_FIT, tf.constant(1 << 45, tf.int64), 1)
        # Zeros would be folded away before any memory is allocated.
        return inputs + tf.reduce_sum(tf.random.uniform([count]))


def test_out_of_memory_is_reported_and_finished_epochs_are_kept(
    tmp_path: Path, data: tuple[Source, Source]
) -> None:
    inputs = keras.Input((CLASSES,))
    model = keras.Model(inputs, keras.layers.Dense(CLASSES)(NeedsTooMuch()(inputs)))
    with (
        pytest.raises(RegraftError, match=r"out of memory \(requested shape .*use a smaller"),
        explain_out_of_memory(),
    ):
        train(model, *data, SETTINGS, tmp_path)
    kept = json.loads((tmp_path / STATE_FILE).read_text())
    assert [line["epoch"] for line in kept["metadata"]["history"]] == [0]


def test_a_loss_that_is_not_finite_is_an_error(data: tuple[Source, Source]) -> None:
    broken = source(np.full((8, CLASSES), np.nan, np.float32), np.zeros(8, np.int32))
    with pytest.raises(RegraftError, match="the loss became nan in epoch 1"):
        train(head(), broken, data[1], SETTINGS)
    with pytest.raises(RegraftError, match="the validation loss became nan in epoch 1"):
        train(head(), data[0], broken, SETTINGS)


def of_another_model(folder: Path) -> None:
    path = folder / "checkpoint.json"
    state = json.loads(path.read_text())
    state["fingerprint"] = "another"
    path.write_text(json.dumps(state))


def half_written(folder: Path) -> None:
    path = folder / "checkpoint.json"
    path.write_text(path.read_text()[:-20])


def flipped(folder: Path) -> None:
    (path,) = folder.glob(f"epoch-{SETTINGS.epochs}.npz")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [half_written, flipped, of_another_model])
def test_a_damaged_checkpoint_is_an_error(
    tmp_path: Path, data: tuple[Source, Source], damage: Callable[[Path], None]
) -> None:
    train(head(), *data, SETTINGS, tmp_path / "c")
    damage(tmp_path / "c")
    with pytest.raises(InputError, match="damaged checkpoint"):
        train(head(), *data, SETTINGS, tmp_path / "c")


@pytest.mark.parametrize("change", [{"fingerprint": "another"}, {"fingerprint": ""}])
def test_a_checkpoint_of_other_options_is_an_error(
    tmp_path: Path, data: tuple[Source, Source], change: dict[str, str]
) -> None:
    train(head(), *data, SETTINGS, tmp_path / "c")
    with pytest.raises(InputError, match="another model, dataset or options"):
        train(head(), *data, dataclasses.replace(SETTINGS, **change), tmp_path / "c")


def test_a_checkpoint_that_does_not_match_does_not_change_the_model(
    tmp_path: Path, data: tuple[Source, Source]
) -> None:
    train(head(), *data, SETTINGS, tmp_path / "c")
    inputs = keras.Input((CLASSES,))
    deeper = keras.Model(inputs, keras.layers.Dense(CLASSES)(keras.layers.Dense(7)(inputs)))
    before = deeper.get_weights()
    with pytest.raises(InputError, match="another model, dataset or options"):
        train(deeper, *data, SETTINGS, tmp_path / "c")
    for ours, theirs in zip(deeper.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_class_weights_raise_the_recall_of_a_rare_class() -> None:
    """Classes overlap and the first one is rare: unweighted, it is hardly ever predicted."""
    rng = np.random.default_rng(0)
    rare, even = np.repeat([0, 1, 2], [4, 48, 48]), np.repeat([0, 1, 2], 30)
    sources = []
    for labels in (rare, even):
        inputs = np.eye(CLASSES)[labels] + rng.normal(0, 1.0, (len(labels), CLASSES))
        rows = inputs.astype(np.float32), labels.astype(np.int32)
        sources.append(
            dataclasses.replace(source(*rows), resident=Resident(*map(tf.constant, rows)))
        )
    recalls = []
    for weights in (None, (8.0, 0.7, 0.7)):
        model = head()
        settings = dataclasses.replace(
            SETTINGS, class_weights=weights, epochs=10, learning_rate=0.05
        )
        train(model, *sources, settings)
        predicted = model(inputs, training=False).numpy().argmax(1)
        recalls.append(float((predicted[labels == 0] == 0).mean()))
    plain, weighted = recalls
    assert weighted > plain + 0.2


def test_label_smoothing_affects_the_training_loss_but_not_validation() -> None:
    """A confident head's loss is the smoothed fraction times its distance to the other classes."""
    labels = np.arange(9, dtype=np.int32) % CLASSES
    rows = source(np.eye(CLASSES, dtype=np.float32)[labels], labels)
    lines = []
    for smoothing in (0.0, 0.1):
        model = keras.Sequential([keras.Input((CLASSES,)), keras.layers.Dense(CLASSES)])
        model.set_weights([20 * np.eye(CLASSES), np.zeros(CLASSES)])
        settings = dataclasses.replace(
            SETTINGS, epochs=1, learning_rate=1e-9, label_smoothing=smoothing
        )
        lines += train(model, rows, rows, settings)
    assert [line.loss for line in lines] == pytest.approx([0.0, 20 * 0.1 * 2 / 3], abs=1e-4)
    assert [line.validation_loss for line in lines] == pytest.approx([0.0, 0.0], abs=1e-4)


@pytest.mark.parametrize(
    ("warm_up_fraction", "rates"),
    [(0.1, {0: 0.002, 5: 0.011, 10: 0.02, 55: 0.01, 100: 0.0}),
     (0.0, {0: 0.02, 1: 0.02, 100: 0.0})],
)  # fmt: skip
def test_the_learning_rate_rises_linearly_then_falls_as_a_cosine(
    warm_up_fraction: float, rates: dict[int, float]
) -> None:
    schedule = RateSchedule(cosine_decay=True)
    schedule.set(0.02, int(warm_up_fraction * 100), 100)
    for step, rate in rates.items():
        assert float(schedule(step)) == pytest.approx(rate, abs=1e-7), step


@pytest.mark.parametrize(
    ("clip", "length", "kept"), [(None, 1e6, 1e6), (2.0, 1e6, 2.0), (2.0, 0.5, 0.5)]
)
def test_a_gradient_longer_than_the_limit_is_cut_to_it(
    clip: float | None, length: float, kept: float
) -> None:
    """Measured in Adam's first moment, because its step hardly depends on a gradient's length."""
    schedule = RateSchedule(cosine_decay=False)
    optimizer = _optimizer(dataclasses.replace(SETTINGS, gradient_clip=clip), schedule)
    weights = keras.Variable(np.zeros(4, np.float32))
    optimizer.build([weights])
    optimizer.apply([tf.constant(np.float32([0.6, 0.0, -0.8, 0.0]) * length)], [weights])
    (moment,) = optimizer._momentums
    weight = 1 - optimizer.beta_1
    np.testing.assert_allclose(moment, [0.6 * kept * weight, 0, -0.8 * kept * weight, 0], rtol=1e-4)
