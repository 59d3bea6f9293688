"""Abstention: the wanted precision in simulations, the lowest threshold, and few images."""

from __future__ import annotations

import math

import numpy as np
import pytest

from components.evaluate.gate.threshold_checks import check_abstention
from components.evaluate.metrics.abstention import confidence_threshold, measure_abstention
from components.evaluate.metrics.held_out import HeldOut
from tests.components.evaluate.test_prediction_sets import predict

RUNS = 150


@pytest.mark.parametrize(("held_out", "margin"), [(200, 3.0), (600, 3.0), (200, 5.0)])
def test_accepted_predictions_have_the_wanted_precision_on_average(
    held_out: int, margin: float
) -> None:
    rng = np.random.default_rng(held_out)
    found, rejected = [], 0
    for _ in range(RUNS):
        images = HeldOut(*predict(rng, held_out, margin), "validation")
        abstention = measure_abstention(images, *predict(rng, 200, margin), 0.95)
        if abstention.accepted:
            found.append(abstention.test_precision)
            (check,) = check_abstention(abstention)
            rejected += not check.passed
    assert len(found) > 0.9 * RUNS
    assert np.mean(found) > 0.95 - 4 * np.std(found) / math.sqrt(len(found))
    assert rejected < 0.05 * RUNS + 4 * math.sqrt(0.05 * 0.95 * RUNS)


def test_the_check_finds_a_model_that_is_less_precise_on_the_test_split() -> None:
    rng = np.random.default_rng(3)
    images = HeldOut(*predict(rng, 400, 3.0), "out-of-fold")
    (check,) = check_abstention(measure_abstention(images, *predict(rng, 400, 1.0), 0.95))
    assert check.name == "precision when not abstaining" and not check.passed


def test_the_threshold_accepts_as_many_images_as_the_precision_allows() -> None:
    confidence = np.linspace(0.99, 0.5, 50)
    correct = np.ones(50, bool)
    assert confidence_threshold(confidence, correct, 0.9) == 0.0, "all are precise enough"
    correct[[30, 40, 41]] = False
    # Of 40 images one is an error, with one added 2 of 41; of 42 there are three.
    assert confidence_threshold(confidence, correct, 0.95) == confidence[39]
    assert confidence_threshold(confidence, correct, 0.99) is None
    assert confidence_threshold(np.empty(0), np.empty(0, bool), 0.5) is None


def test_images_of_the_same_confidence_are_accepted_together() -> None:
    confidence = np.repeat([0.9, 0.8], [20, 5])
    correct = np.arange(25) < 23
    assert confidence_threshold(confidence, correct, 0.95) == 0.9


def test_without_a_threshold_no_image_is_accepted_and_the_model_rejected() -> None:
    rng = np.random.default_rng(5)
    images = HeldOut(*predict(rng, 60, 3.0), "validation")
    abstention = measure_abstention(images, *predict(rng, 100, 3.0), 0.99)
    (check,) = check_abstention(abstention)
    assert abstention.threshold is None and abstention.accepted == 0 and not check.passed
    assert check.received == (
        "no confidence is enough on 60 held-out images; without an error, 99 accepted ones are"
    )
