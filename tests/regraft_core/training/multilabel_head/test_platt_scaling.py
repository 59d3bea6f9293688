"""Calibration of each label: known slopes are found, and the order never changes."""

from __future__ import annotations

import numpy as np
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from regraft_core.training.linear_head.linear_classifier import Weights
from regraft_core.training.multilabel_head.platt_scaling import LEAST_SLOPE, PlattScaling


def test_slopes_and_intercepts_of_each_label_are_found() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (20_000, 3))
    slopes, intercepts = np.array([0.5, 1.0, 2.0]), np.array([-1.0, 0.0, 0.5])
    labels = (rng.random(logits.shape) < expit(slopes * logits + intercepts)).astype(np.uint8)
    found = PlattScaling.fit(logits, labels)
    np.testing.assert_allclose(found.slopes, slopes, rtol=0.07)
    np.testing.assert_allclose(found.intercepts, intercepts, atol=0.07)
    for k in range(3):  # of so many images, those that are added do not matter
        reference = LogisticRegression(C=np.inf, tol=1e-8).fit(logits[:, [k]], labels[:, k])
        np.testing.assert_allclose(found.slopes[k], reference.coef_[0, 0], rtol=2e-3)


def test_separated_labels_have_finite_logits() -> None:
    labels = np.array([[1, 0], [0, 1]] * 10, np.uint8)
    calibrated = PlattScaling.fit((labels - 0.5) * 8, labels).logits((labels - 0.5) * 8)
    np.testing.assert_allclose(expit(calibrated), np.where(labels, 11 / 12, 1 / 12), atol=1e-3)


def test_the_order_of_images_never_changes() -> None:
    logits = np.array([[3.0], [1.0], [-2.0], [-4.0]])
    reversed_labels = np.array([[0], [0], [1], [1]])
    assert PlattScaling.fit(logits, reversed_labels).slopes == LEAST_SLOPE


def test_weights_of_calibrated_logits() -> None:
    rng = np.random.default_rng(1)
    weights, rows = Weights(rng.normal(size=(4, 2)), rng.normal(size=2)), rng.normal(size=(5, 4))
    scaling = PlattScaling(np.array([2.0, 0.5]), np.array([1.0, -1.0]))
    np.testing.assert_allclose(
        scaling.weights(weights).logits(rows), scaling.logits(weights.logits(rows))
    )


def test_labels_of_all_images_or_of_none_keep_their_logits() -> None:
    logits = np.random.default_rng(2).normal(0, 3, (50, 2))
    found = PlattScaling.fit(logits, np.tile(np.array([0, 1], np.uint8), (50, 1)))
    np.testing.assert_array_equal(found.logits(logits), logits)
