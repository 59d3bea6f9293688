"""The training loop for several labels an image: loss, accuracy, rows in memory, mixing."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from regraft_core.training.loop import Settings, Trainer
from regraft_core.training.multilabel_head.binary_regressions import binary_losses
from regraft_core.training.training_source import Batch, Resident, Source

LABELS = 3
SETTINGS = Settings(
    phase="top", epochs=4, batch_size=20, learning_rate=0.3, seed=3, classes=LABELS, several=True
)  # fmt: skip


def source(inputs: NDArray[np.float32], labels: NDArray[np.uint8], *, resident: bool) -> Source:
    def fetch(indices: NDArray[np.int64], epoch: int) -> Batch:
        return inputs[indices], labels[indices]

    spec = tf.TensorSpec([None, *inputs.shape[1:]], tf.float32)
    memory = Resident(tf.constant(inputs), tf.constant(labels)) if resident else None
    return Source(len(inputs), fetch, spec, resident=memory, several=True)


@pytest.fixture
def data() -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    rng = np.random.default_rng(0)
    labels = (rng.random((60, LABELS)) < 0.4).astype(np.uint8)
    return (labels + rng.normal(0, 0.3, labels.shape)).astype(np.float32), labels


def train(
    data: tuple[NDArray[np.float32], NDArray[np.uint8]], settings: Settings, *, resident: bool
) -> Trainer:
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((LABELS,)), keras.layers.Dense(LABELS)])
    sources = [source(*(array[part] for array in data), resident=resident)
               for part in (slice(40), slice(40, None))]  # fmt: skip
    trainer = Trainer(model, *sources, settings)
    trainer.train(settings)
    return trainer


@pytest.mark.parametrize("resident", [True, False])
def test_the_loss_is_the_binary_cross_entropy_of_all_labels(
    data: tuple[NDArray[np.float32], NDArray[np.uint8]], resident: bool
) -> None:
    trainer = train(data, SETTINGS, resident=resident)
    inputs, labels = (array[40:] for array in data)
    logits = trainer.model(inputs).numpy()
    measured = trainer.measure()
    np.testing.assert_allclose(
        measured[:, 0], binary_losses(logits, labels).mean(axis=1), rtol=1e-4
    )
    np.testing.assert_allclose(measured[:, 1], ((logits > 0) == labels).mean(axis=1), atol=1e-6)
    assert measured[:, 0].mean() < 0.5 < np.log(2)
    assert measured[:, 1].mean() > 0.75


def test_mixed_rows_have_the_labels_of_both(
    data: tuple[NDArray[np.float32], NDArray[np.uint8]],
) -> None:
    mixed = dataclasses.replace(SETTINGS, mix="mixup")
    measured = train(data, mixed, resident=True).measure().mean(axis=0)
    assert measured[0] < 0.55 < np.log(2)
    assert measured[1] > 0.75
