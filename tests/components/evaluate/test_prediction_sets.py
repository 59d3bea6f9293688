"""Prediction sets: the chosen coverage in simulations, the smallest sets, and few images."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import softmax

from components.evaluate.gate.threshold_checks import check_sets
from components.evaluate.metrics.held_out import HeldOut
from components.evaluate.metrics.prediction_sets import measure_sets, set_threshold

RUNS, CLASSES = 150, 5
Images = tuple[NDArray[np.float64], NDArray[np.int64]]


def predict(rng: np.random.Generator, images: int, margin: float) -> Images:
    """Return probabilities and true labels; the model is correct more often with a margin."""
    labels = rng.integers(0, CLASSES, images)
    logits = rng.normal(0, 1.5, (images, CLASSES))
    logits[np.arange(images), labels] += margin
    return softmax(logits, axis=1), labels


@pytest.mark.parametrize("held_out", [20, 200])
@pytest.mark.parametrize("coverage", [0.8, 0.9])
def test_sets_have_the_chosen_coverage_on_average(held_out: int, coverage: float) -> None:
    """Whatever the model and however few the images; the mean is within 4 standard errors."""
    rng = np.random.default_rng(held_out)
    found = []
    for _ in range(RUNS):
        calibration = HeldOut(*predict(rng, held_out, 1.5), "validation")
        found.append(measure_sets(calibration, *predict(rng, 100, 1.5), coverage).test_coverage)
    error = np.std(found) / math.sqrt(RUNS)
    assert coverage - 4 * error < np.mean(found) < coverage + 1 / (held_out + 1) + 4 * error


def test_the_check_rejects_sets_that_hold_in_at_most_one_of_twenty_runs() -> None:
    rng = np.random.default_rng(0)
    rejected = {0.0: 0, 1.0: 0}
    for shift in rejected:
        for _ in range(RUNS):
            calibration = HeldOut(*predict(rng, 100, 1.5), "validation")
            sets = measure_sets(calibration, *predict(rng, 300, 1.5 - shift), 0.9)
            (check,) = check_sets(sets)
            rejected[shift] += not check.passed
    assert rejected[0.0] / RUNS < 0.05 + 4 * math.sqrt(0.05 * 0.95 / RUNS)
    assert rejected[1.0] / RUNS > 0.8


def test_a_set_has_the_predicted_label_and_the_true_one_of_a_confused_image() -> None:
    held_out = HeldOut(np.array([[0.9, 0.1]] * 15 + [[0.6, 0.4]] * 4), np.repeat([0, 1], [15, 4]),
                       "out-of-fold")  # fmt: skip
    tested = np.array([[0.95, 0.05], [0.55, 0.45], [0.3, 0.7]]), np.array([0, 1, 0])
    sets = measure_sets(held_out, *tested, 0.95)
    assert sets.threshold == 0.4
    assert (sets.covered, sets.sizes, sets.mean_size) == (2, {"1": 2, "2": 1}, 4 / 3)
    assert (sets.scores, sets.held_out_images, sets.needed_images) == ("out-of-fold", 19, 19)
    sure = measure_sets(HeldOut(np.array([[0.99, 0.01]] * 19), np.zeros(19, int), ""), *tested, 0.5)
    assert sure.sizes == {"1": 3}, "no set is empty, though no probability reaches the threshold"


def test_the_threshold_of_too_few_images_is_that_of_all_labels() -> None:
    known = np.linspace(0.5, 0.9, 18)
    assert set_threshold(known, 0.95) == 0.0
    assert set_threshold(np.append(known, 0.3), 0.95) == 0.3
    rows = np.column_stack([known, 1 - known])
    sets = measure_sets(HeldOut(rows, np.zeros(18, int), ""), rows, np.zeros(18, int), 0.95)
    (check,) = check_sets(sets)
    assert sets.sizes == {"2": 18} and not check.passed
    assert check.received == "only 18 held-out images, expected 19"


def test_no_test_image_never_passes() -> None:
    rng = np.random.default_rng(1)
    nothing = np.empty((0, CLASSES)), np.empty(0, int)
    sets = measure_sets(HeldOut(*predict(rng, 50, 2.0), ""), *nothing, 0.9)
    (check,) = check_sets(sets)
    assert math.isnan(sets.test_coverage) and not check.passed
