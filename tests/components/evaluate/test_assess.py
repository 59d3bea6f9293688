"""From logits to a verdict."""

from __future__ import annotations

import numpy as np
import pytest

from components.evaluate.assess import ChampionResult, Cost, LabeledLogits, assess
from components.evaluate.gate.gate import NO_CHAMPION
from regraft_core.formats.options import GateOptions

CLASSES = ["cat", "dog", "owl"]


def said(seed: int, images: int, margin: float, sharpness: float = 1.0) -> LabeledLogits:
    rng = np.random.default_rng(seed)
    true_labels = rng.integers(0, 3, images)
    logits = rng.normal(0, 1, (images, 3))
    logits[np.arange(images), true_labels] += margin
    return LabeledLogits((logits * sharpness).astype(np.float32), true_labels)


def failed(assessment) -> list[str]:
    return [check.name for check in assessment.verdict.checks if not check.passed]


def test_a_good_model_is_accepted_with_all_its_figures() -> None:
    found = assess(said(1, 200, 5), said(2, 300, 5), CLASSES, GateOptions(min_accuracy=0.9),
                   cost=Cost(model_mb=3.0, latency_ms=2.0))  # fmt: skip
    assert found.verdict.accepted
    for name in ("test_accuracy", "test_accuracy_low", "test_accuracy_high", "macro_f1",
                 "log_loss", "roc_auc", "calibration_error", "calibration_error_before",
                 "model_mb", "latency_ms"):  # fmt: skip
        assert np.isfinite(found.figures.metrics[name])
    assert NO_CHAMPION in found.notes
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1)


def test_temperature_is_fitted_on_validation_and_mends_calibration() -> None:
    found = assess(said(1, 800, 2, 4.0), said(2, 800, 2, 4.0), CLASSES, GateOptions(), cost=Cost())
    metrics = found.figures.metrics
    assert found.temperature > 1.5
    assert metrics["calibration_error"] < metrics["calibration_error_before"] / 2
    other = assess(said(1, 800, 2, 4.0), said(3, 50, 0), CLASSES, GateOptions(), cost=Cost())
    assert other.temperature == found.temperature


def test_an_empty_test_split_never_passes() -> None:
    nothing = LabeledLogits(np.empty((0, 3), np.float32), np.empty(0, int))
    found = assess(said(1, 50, 5), nothing, CLASSES, GateOptions(), cost=Cost())
    assert not found.verdict.accepted
    assert failed(found) == ["test images", "accuracy"]


def test_an_empty_validation_split_leaves_temperature_and_threshold_alone() -> None:
    nothing = LabeledLogits(np.empty((0, 3), np.float32), np.empty(0, int))
    found = assess(nothing, said(1, 50, 5), CLASSES, GateOptions(), cost=Cost())
    assert found.temperature == 1.0 and found.ood is None


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_prediction_that_is_not_a_number_fails_the_gate(value) -> None:
    test = said(2, 100, 5)
    test.logits[7, 1] = value
    found = assess(said(1, 50, 5), test, CLASSES, GateOptions(), cost=Cost())
    assert failed(found) == ["predictions"]
    assert np.isnan(found.probabilities[7]).all()
    assert np.isfinite(np.delete(found.probabilities, 7, axis=0)).all()


def test_a_model_of_nothing_but_nan_fails_without_an_error() -> None:
    nan = LabeledLogits(np.full((10, 3), np.nan, np.float32), np.zeros(10, int))
    found = assess(nan, nan, CLASSES, GateOptions(), cost=Cost())
    assert not found.verdict.accepted and found.temperature == 1.0


def test_a_champion_that_is_right_more_often_wins() -> None:
    test = said(2, 300, 1.5)
    found = assess(said(1, 50, 1.5), test, CLASSES, GateOptions(), cost=Cost(),
                   champion=ChampionResult("birds version 4", np.ones(300, bool)))  # fmt: skip
    assert failed(found) == ["champion"]
    assert found.figures.metrics["champion_accuracy"] == 1.0
    assert found.figures.metrics["champion_difference"] < 0
    assert NO_CHAMPION not in found.notes


def test_an_image_without_numbers_counts_as_wrong_against_the_champion() -> None:
    test = LabeledLogits(np.array([[np.nan, 9.0, 0.0], [5.0, 0.0, 0.0]]), np.array([0, 0]))
    found = assess(test, test, CLASSES, GateOptions(), cost=Cost(),
                   champion=ChampionResult("a", np.array([True, True])))  # fmt: skip
    assert found.comparison is not None and found.comparison.losses == 1


def test_a_floor_for_a_class_without_test_images_fails() -> None:
    test = LabeledLogits(np.array([[5.0, 0.0, 0.0], [0.0, 5.0, 0.0]]), np.array([0, 1]))
    found = assess(test, test, CLASSES, GateOptions(min_class_recall=0.5), cost=Cost())
    assert failed(found) == ["recall of owl"]


def test_a_candidate_below_its_head_is_refused() -> None:
    cost = Cost(validation_accuracy=0.8, head_validation_accuracy=0.9)
    found = assess(said(1, 50, 5), said(2, 50, 5), CLASSES, GateOptions(), cost=cost)
    assert failed(found) == ["candidate"]
