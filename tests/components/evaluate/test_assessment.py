"""From logits to a verdict."""

from __future__ import annotations

import numpy as np
import pytest

from components.evaluate.assessment import ChampionResult, Cost, LabeledLogits, assess
from components.evaluate.gate.gate import NO_CHAMPION
from regraft_core.formats.options.evaluate import GateOptions
from regraft_core.formats.served_thresholds import ServedThresholds

CLASSES = ["cat", "dog", "owl"]


def labeled(seed: int, images: int, margin: float, sharpness: float = 1.0) -> LabeledLogits:
    rng = np.random.default_rng(seed)
    true_labels = rng.integers(0, 3, images)
    logits = rng.normal(0, 1, (images, 3))
    logits[np.arange(images), true_labels] += margin
    return LabeledLogits((logits * sharpness).astype(np.float32), true_labels)


def failed(assessment) -> list[str]:
    return [check.name for check in assessment.verdict.checks if not check.passed]


def test_a_good_model_is_accepted_with_all_its_metrics() -> None:
    result = assess(labeled(1, 200, 5), labeled(2, 300, 5), CLASSES, GateOptions(min_accuracy=0.9),
                   cost=Cost(model_mb=3.0, latency_ms=2.0))  # fmt: skip
    assert result.verdict.accepted
    for name in ("test_accuracy", "test_accuracy_low", "test_accuracy_high", "macro_f1",
                 "log_loss", "roc_auc", "calibration_error", "calibration_error_before",
                 "model_mb", "latency_ms"):  # fmt: skip
        assert np.isfinite(result.metrics.values[name])
    assert NO_CHAMPION in result.notes
    np.testing.assert_allclose(result.probabilities.sum(axis=1), 1)


def test_temperature_is_fitted_on_validation_and_reduces_the_calibration_error() -> None:
    validation, test = labeled(1, 800, 2, 4.0), labeled(2, 800, 2, 4.0)
    result = assess(validation, test, CLASSES, GateOptions(), cost=Cost())
    metrics = result.metrics.values
    assert result.temperature > 1.5
    assert metrics["calibration_error"] < metrics["calibration_error_before"] / 2
    other = assess(validation, labeled(3, 50, 0), CLASSES, GateOptions(), cost=Cost())
    assert other.temperature == result.temperature


def test_an_empty_test_split_never_passes() -> None:
    nothing = LabeledLogits(np.empty((0, 3), np.float32), np.empty(0, int))
    result = assess(labeled(1, 50, 5), nothing, CLASSES, GateOptions(), cost=Cost())
    assert not result.verdict.accepted
    assert failed(result) == ["test images", "accuracy", "baseline", "recall floor"]


def test_an_empty_validation_split_sets_no_temperature_and_no_threshold() -> None:
    nothing = LabeledLogits(np.empty((0, 3), np.float32), np.empty(0, int))
    result = assess(nothing, labeled(1, 50, 5), CLASSES, GateOptions(), cost=Cost())
    assert result.temperature == 1.0 and result.ood is None


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_prediction_that_is_not_finite_fails_the_gate(value) -> None:
    test = labeled(2, 100, 5)
    test.logits[7, 1] = value
    result = assess(labeled(1, 50, 5), test, CLASSES, GateOptions(), cost=Cost())
    assert failed(result) == ["predictions"]
    assert np.isnan(result.probabilities[7]).all()
    assert np.isfinite(np.delete(result.probabilities, 7, axis=0)).all()


def test_predictions_that_are_all_nan_fail_the_gate() -> None:
    nan = LabeledLogits(np.full((10, 3), np.nan, np.float32), np.zeros(10, int))
    result = assess(nan, nan, CLASSES, GateOptions(), cost=Cost())
    assert not result.verdict.accepted and result.temperature == 1.0


def test_a_significantly_better_champion_fails_the_candidate() -> None:
    test = labeled(2, 300, 1.5)
    result = assess(labeled(1, 50, 1.5), test, CLASSES, GateOptions(), cost=Cost(),
                   champion=ChampionResult("birds version 4", np.ones(300, bool)))  # fmt: skip
    assert failed(result) == ["champion"]
    assert result.metrics.values["champion_accuracy"] == 1.0
    assert result.metrics.values["champion_difference"] < 0
    assert NO_CHAMPION not in result.notes


def test_an_image_that_is_not_finite_counts_as_an_error_against_the_champion() -> None:
    test = LabeledLogits(np.array([[np.nan, 9.0, 0.0], [5.0, 0.0, 0.0]]), np.array([0, 0]))
    result = assess(test, test, CLASSES, GateOptions(), cost=Cost(),
                   champion=ChampionResult("a", np.array([True, True])))  # fmt: skip
    assert result.comparison is not None and result.comparison.losses == 1


def test_a_minimum_recall_of_a_class_without_test_images_fails() -> None:
    test = LabeledLogits(np.array([[5.0, 0.0, 0.0], [0.0, 5.0, 0.0]]), np.array([0, 1]))
    result = assess(test, test, CLASSES, GateOptions(min_class_recall=0.5), cost=Cost())
    assert failed(result) == ["recall of owl"]


def test_a_candidate_below_its_head_fails_the_gate() -> None:
    cost = Cost(validation_accuracy=0.8, head_validation_accuracy=0.9)
    result = assess(labeled(1, 50, 5), labeled(2, 50, 5), CLASSES, GateOptions(), cost=cost)
    assert failed(result) == ["candidate"]


def test_thresholds_hold_for_confidences_that_are_1_in_the_served_precision() -> None:
    # Its logits are so large that most confidences differ from 1 by less than float32 shows.
    unseen, test = labeled(4, 2000, 2, 15.0), labeled(5, 1000, 2, 15.0)
    options = GateOptions(abstain_precision=0.97, coverage=0.9)
    result = assess(labeled(1, 50, 9), test, CLASSES, options, cost=Cost(), out_of_fold=unseen)
    assert result.temperature == 1.0
    abstention, sets = result.abstention, result.prediction_sets
    assert abstention is not None and sets is not None
    shifted = np.exp(test.logits - test.logits.max(axis=1, keepdims=True))
    served = shifted / shifted.sum(axis=1, keepdims=True)
    assert served.dtype == np.float32 and np.mean(served.max(axis=1) == 1) > 0.2
    thresholds = ServedThresholds(sets.threshold, abstention.threshold)
    abstains, inside = thresholds.abstains(served), thresholds.label_sets(served)
    assert abstains is not None and inside is not None
    assert abstention.accepted == int((~abstains).sum())
    assert sets.covered == int(inside[np.arange(1000), test.true_labels].sum())
