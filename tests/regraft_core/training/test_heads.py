"""Heads: standardization of the features, and that penalty and dropout affect training."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from regraft_core.formats.options import HeadOptions
from regraft_core.training.heads import build_head, standardize
from regraft_core.training.loop import Settings, train
from regraft_core.training.model_files import MODEL_FILE, read_keras_file, save_model
from regraft_core.training.training_source import Resident, Source

EPSILON = 1e-3


@pytest.mark.parametrize(
    ("variance", "expected"),
    [
        pytest.param([1, 2, 3, 4, 100], [4, 4, 4, 4, 100], id="most are raised"),
        pytest.param([100, 0, 3, 4, 0], [100, 4, 4, 4, 4], id="some are constant"),
        pytest.param([0] * 7 + [100], [0.125] * 7 + [100], id="most are constant"),
        pytest.param([2, 2, 2], [2, 2, 2], id="equal"),
        pytest.param([0, 0, 0], [0, 0, 0], id="all are constant"),
    ],
)
def test_variances_below_the_floor_are_raised_to_it(
    variance: list[float], expected: list[float]
) -> None:
    head = build_head(len(variance), 2, HeadOptions())
    mean = np.arange(len(variance), dtype=np.float32)
    standardize(head, mean, np.array(variance, np.float32))
    layer = head.get_layer("head_standardize")
    steps = np.array([[0.0], [1.0], [-3.0]], np.float32)
    np.testing.assert_allclose(
        layer(mean + steps), steps / np.sqrt(np.array(expected) + EPSILON), rtol=1e-3, atol=1e-5
    )


def test_channels_of_low_variance_stay_small_when_training_updates_the_statistics() -> None:
    rng = np.random.default_rng(0)
    deviation = np.array([1.0, 1.0, 1.0, 1e-3], np.float32)
    rows = rng.normal(size=(256, 4)).astype(np.float32) * deviation
    head = build_head(4, 2, HeadOptions())
    standardize(head, rows.mean(0), rows.var(0))
    layer = head.get_layer("head_standardize")
    layer.trainable = True
    assert np.abs(layer(rows, training=True)[:, 3]).max() < 0.01


def test_standardization_is_saved_and_loaded(tmp_path: Path) -> None:
    head = build_head(3, 2, HeadOptions(dropout=0.0))
    standardize(head, np.float32([1, 2, 3]), np.float32([0, 4, 9]))
    save_model(head, tmp_path)
    inputs = np.random.default_rng(0).normal(0, 3, (5, 3)).astype(np.float32)
    np.testing.assert_array_equal(read_keras_file(tmp_path / MODEL_FILE)(inputs), head(inputs))


def trained(options: HeadOptions) -> keras.Model:
    """Train a head on two classes that are easy to separate."""
    rng = np.random.default_rng(0)
    labels = np.arange(40, dtype=np.int32) % 2
    inputs = (rng.normal(0, 0.3, (40, 4)) + labels[:, None]).astype(np.float32)
    rows = Source(
        40,
        lambda indices, epoch: (inputs[indices], labels[indices]),
        tf.TensorSpec([None, 4], tf.float32),
        resident=Resident(tf.constant(inputs), tf.constant(labels)),
    )
    head = build_head(4, 2, options)
    standardize(head, inputs.mean(0), inputs.var(0))
    train(head, rows, rows, Settings("head", 15, 8, 0.05, seed=0, classes=2))
    return head


@pytest.mark.parametrize("dense_width", [0, 8])
def test_the_penalty_keeps_weights_small(dense_width: int) -> None:
    without, penalized = (
        trained(HeadOptions(l2=l2, dense_width=dense_width, dropout=0.0)) for l2 in (0.0, 0.1)
    )
    for name in ["logits", "head_dense"][: 1 + bool(dense_width)]:
        norms = [float(tf.norm(model.get_layer(name).kernel)) for model in (without, penalized)]
        assert norms[1] < 0.6 * norms[0], name


def test_dropout_depends_on_the_seed_and_only_affects_training() -> None:
    inputs = np.random.default_rng(0).normal(size=(8, 32)).astype(np.float32)
    heads = [build_head(32, 3, HeadOptions(dropout=0.5, seed=seed)) for seed in (1, 1, 2)]
    for head in heads[1:]:
        head.set_weights(heads[0].get_weights())
    first, again, other = (head(inputs, training=True).numpy() for head in heads)
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.1
    plain = [head(inputs, training=False).numpy() for head in heads]
    np.testing.assert_array_equal(plain[0], plain[2])
    assert np.abs(first - plain[0]).max() > 0.1
