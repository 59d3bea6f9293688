"""Calibration error and temperature scaling."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.metrics import log_loss

from components.evaluate.metrics.calibration import (
    HIGHEST,
    LOWEST,
    calibration_error,
    choose_temperature,
    fit_temperature,
    reliability,
    to_probabilities,
)


def overconfident(rng: np.random.Generator, images: int, sharpness: float):
    """Return logits that are too sharp; the true classes are sampled from their softmax before."""
    logits = rng.normal(0, 1.5, (images, 5))
    true_labels = np.array([rng.choice(5, p=row) for row in softmax(logits, axis=1)])
    return logits * sharpness, true_labels


def test_calibration_error_by_hand() -> None:
    # Four images at 0.9 (three correct), two at 0.6 (one correct): (4*|.9-.75| + 2*|.6-.5|) / 6.
    confidence = np.array([0.9] * 4 + [0.6] * 2)
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    true_labels = np.array([0, 0, 0, 1, 0, 1])
    assert calibration_error(probabilities, true_labels) == pytest.approx((4 * 0.15 + 2 * 0.1) / 6)


@pytest.mark.parametrize("sharpness", [1.0, 3.0])
def test_calibration_error_equals_the_plain_sum_over_bins(sharpness) -> None:
    logits, true_labels = overconfident(np.random.default_rng(0), 500, sharpness)
    probabilities = softmax(logits, axis=1)
    confidence, predicted = probabilities.max(axis=1), probabilities.argmax(axis=1)
    edges = np.linspace(0, 1, 16)
    total = 0.0
    for low, high in itertools.pairwise(edges):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            total += abs(confidence[inside].sum() - (predicted == true_labels)[inside].sum())
    assert calibration_error(probabilities, true_labels) == pytest.approx(total / 500)


@pytest.mark.parametrize("confidence", [0.5, 1.0])
def test_confidence_at_the_ends_is_in_a_bin(confidence) -> None:
    probabilities = np.array([[confidence, 1 - confidence]])
    (group,) = reliability(probabilities, np.array([0]))
    assert group.count == 1 and group.low < confidence <= group.high


@pytest.mark.parametrize(
    ("probabilities", "position"),
    [([0.5, 0.5], 7), ([8 / 15, 7 / 15], 7), ([1 + 1e-7, -1e-7], 14), ([0.05] * 20, 0)],
)
def test_a_bin_is_a_fifteenth(probabilities, position) -> None:
    (group,) = reliability(np.array([probabilities]), np.array([0]))
    assert (group.low, group.high) == (position / 15, (position + 1) / 15)


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 2.5, 6.0])
def test_the_fitted_temperature_equals_a_known_sharpness(sharpness) -> None:
    logits, true_labels = overconfident(np.random.default_rng(4), 4000, sharpness)
    temperature = fit_temperature(logits, true_labels)
    assert temperature == pytest.approx(sharpness, rel=0.08)
    assert calibration_error(to_probabilities(logits, temperature), true_labels) < 0.03


def test_the_fitted_temperature_is_the_best_of_a_fine_grid() -> None:
    logits, true_labels = overconfident(np.random.default_rng(5), 300, 3.0)
    ours = log_loss(true_labels, to_probabilities(logits, fit_temperature(logits, true_labels)))
    grid = [log_loss(true_labels, to_probabilities(logits, t)) for t in np.geomspace(0.05, 20, 300)]
    assert ours <= min(grid) + 1e-9


@given(
    st.lists(st.lists(st.floats(-30, 30), min_size=3, max_size=3), min_size=1, max_size=20),
    st.floats(LOWEST, HIGHEST),
)
def test_temperature_never_changes_a_prediction(rows, temperature) -> None:
    logits = np.array(rows)
    scaled = to_probabilities(logits, temperature)
    best = logits.max(axis=1)
    # The served class is one of those with the highest logit, ties included.
    assert (logits[np.arange(len(rows)), scaled.argmax(axis=1)] >= best - 1e-9).all()


@pytest.mark.parametrize(
    ("logits", "true_labels"),
    [
        (np.empty((0, 3)), np.empty(0, int)),
        (np.array([[1.0, np.nan]]), np.array([1])),
        (np.array([[np.inf, 0.0]]), np.array([1])),
        (np.array([[3.0, 0.0], [0.0, 2.0]]), np.array([0, 1])),
        (np.zeros((4, 2)), np.array([0, 1, 0, 1])),
    ],
    ids=["nothing", "not a number", "infinite", "no error", "no information"],
)
def test_temperature_is_1_if_the_data_do_not_determine_it(logits, true_labels) -> None:
    assert fit_temperature(logits, true_labels) == 1.0


@pytest.mark.parametrize("true_labels", [[1, 0], [0, 0], [1, 1]])
def test_a_model_no_better_than_chance_gets_the_highest_temperature(true_labels) -> None:
    logits = np.array([[5.0, 0.0], [0.0, 5.0]])
    assert fit_temperature(logits, np.array(true_labels)) == pytest.approx(HIGHEST, rel=0.01)


def test_without_a_temperature_probabilities_are_the_softmax() -> None:
    logits = np.array([[1.0, 2.0, 4.0]])
    np.testing.assert_array_equal(to_probabilities(logits), softmax(logits, axis=1))


def test_a_temperature_that_only_fits_noise_is_not_chosen() -> None:
    # The logits are calibrated as they are, so every other temperature is noise.
    chosen, better, runs = 0, 0, 60
    for seed in range(runs):
        logits, true_labels = overconfident(np.random.default_rng(seed), 60, 1.0)
        better += fit_temperature(logits, true_labels) != 1.0
        chosen += choose_temperature(logits, true_labels) != 1.0
    assert better > 0.9 * runs
    assert chosen <= 0.1 * runs


def test_a_temperature_that_improves_the_loss_beyond_noise_is_the_fitted_one() -> None:
    logits, true_labels = overconfident(np.random.default_rng(4), 300, 3.0)
    temperature = choose_temperature(logits, true_labels)
    assert temperature == fit_temperature(logits, true_labels) and temperature > 2


@pytest.mark.parametrize("images", [0, 1, 2, 7])
def test_a_few_images_choose_no_temperature_without_an_error(images) -> None:
    logits, true_labels = np.eye(4)[np.arange(images) % 4] * 3, np.arange(images) % 4
    assert choose_temperature(logits, true_labels) == 1.0
