"""Thresholds of labels: the highest F1 of all possible ones, exact in float32."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import f1_score

from regraft_core.training.multilabel_head.label_thresholds import (
    choose_thresholds,
    f1_scores,
    served_probabilities,
)


@pytest.mark.parametrize("digits", [1, 8])  # with many equal probabilities, and with none
def test_no_threshold_has_a_higher_f1(digits: int) -> None:
    rng = np.random.default_rng(2)
    labels = (rng.random((80, 3)) < [0.5, 0.2, 0.05]).astype(np.uint8)
    probabilities = expit(2 * labels - 1 + rng.normal(size=labels.shape)).round(digits)
    probabilities = probabilities.astype(np.float32)
    thresholds = choose_thresholds(probabilities, labels)
    for column, threshold in enumerate(thresholds):
        known, own = labels[:, column], probabilities[:, column]
        best = max(f1_score(known, own >= one) for one in np.unique(own))
        assert f1_score(known, own >= np.float32(threshold)) == pytest.approx(best)
        assert threshold == float(np.float32(threshold))
        assert np.abs(own - threshold).min() > 0  # between two probabilities
    macro, micro = f1_scores(probabilities >= np.array(thresholds, np.float32), labels)
    predicted = probabilities >= np.array(thresholds, np.float32)
    assert macro == pytest.approx(f1_score(labels, predicted, average="macro"))
    assert micro == pytest.approx(f1_score(labels, predicted, average="micro"))


def test_neighbors_in_float32_are_told_apart() -> None:
    low = np.float32(0.7)
    high = np.nextafter(low, np.float32(1.0))
    (threshold,) = choose_thresholds(np.array([[low], [high]]), np.array([[0], [1]], np.uint8))
    assert low < np.float32(threshold) <= high


def test_labels_without_images_and_labels_of_all_images() -> None:
    probabilities = np.array([[0.2, 0.3], [0.9, 0.8]], np.float32)
    labels = np.array([[0, 1], [0, 1]], np.uint8)
    never, always = choose_thresholds(probabilities, labels)
    assert never == 0.5
    assert 0 < always < 0.3


def test_probabilities_are_those_of_float32() -> None:
    logits = np.linspace(-90, 90, 7)
    found = served_probabilities(logits)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expit(logits), atol=1e-7)
