"""Heads: standardization of the features, and weights for unscaled features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from regraft_core.training.heads import add_offset, build_head, set_logits, standardize
from regraft_core.training.model_files import MODEL_FILE, read_keras_file, save_model

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
    head = build_head(len(variance), 2)
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
    head = build_head(4, 2)
    standardize(head, rows.mean(0), rows.var(0))
    layer = head.get_layer("head_standardize")
    layer.trainable = True
    assert np.abs(layer(rows, training=True)[:, 3]).max() < 0.01


def test_standardization_is_saved_and_loaded(tmp_path: Path) -> None:
    head = build_head(3, 2)
    standardize(head, np.float32([1, 2, 3]), np.float32([0, 4, 9]))
    save_model(head, tmp_path)
    inputs = np.random.default_rng(0).normal(0, 3, (5, 3)).astype(np.float32)
    np.testing.assert_array_equal(read_keras_file(tmp_path / MODEL_FILE)(inputs), head(inputs))


def test_set_logits_gives_the_logits_of_unscaled_features() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal([1, 50, -3], [1, 20, 0.1], (40, 3)).astype(np.float32)
    kernel, bias = rng.normal(size=(3, 2)), rng.normal(size=2)
    head = build_head(3, 2)
    standardize(head, rows.mean(0), rows.var(0))
    set_logits(head, kernel, bias)
    np.testing.assert_allclose(head(rows), rows @ kernel + bias, rtol=1e-4, atol=1e-4)
    add_offset(head.get_layer("logits"), np.array([0.5, -0.5]))
    np.testing.assert_allclose(head(rows), rows @ kernel + bias + [0.5, -0.5], rtol=1e-4, atol=1e-4)
