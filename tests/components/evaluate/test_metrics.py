"""Metrics of known predictions, compared with scikit-learn and computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn import metrics as theirs

from components.evaluate.metrics.classification import measure_predictions, roc_auc, roc_points
from regraft_core.training.intervals import wilson_interval


def soft(rng: np.random.Generator, images: int, classes: int):
    true_labels = rng.integers(0, classes, images)
    logits = rng.normal(0, 1, (images, classes))
    logits[np.arange(images), true_labels] += 1.5
    probabilities = np.exp(logits)
    return probabilities / probabilities.sum(axis=1, keepdims=True), true_labels


@pytest.mark.parametrize("classes", [2, 3, 4, 5, 10])
def test_metrics_equal_those_of_scikit_learn(classes) -> None:
    probabilities, true_labels = soft(np.random.default_rng(classes), 300, classes)
    names = [f"c{k}" for k in range(classes)]
    result = measure_predictions(probabilities, true_labels, names)
    predicted = probabilities.argmax(axis=1)
    values = result.values
    assert values["test_accuracy"] == theirs.accuracy_score(true_labels, predicted)
    correct = int((predicted == true_labels).sum())
    interval = (values["test_accuracy_low"], values["test_accuracy_high"])
    assert interval == wilson_interval(correct, 300)
    assert values["macro_f1"] == theirs.f1_score(true_labels, predicted, average="macro")
    assert values["log_loss"] == pytest.approx(
        -np.log(probabilities[np.arange(300), true_labels]).mean()
    )
    if classes == 2:
        assert values["roc_auc"] == pytest.approx(
            theirs.roc_auc_score(true_labels, probabilities[:, 1])
        )
    else:
        area = theirs.roc_auc_score(true_labels, probabilities, multi_class="ovr", average="macro")
        assert values["roc_auc"] == pytest.approx(area)
    for k in (3, 5):
        name = f"test_top{k}_accuracy"
        assert (name in values) == (k < classes)
        if k < classes:
            assert values[name] == theirs.top_k_accuracy_score(true_labels, probabilities, k=k)
    np.testing.assert_array_equal(result.confusion, theirs.confusion_matrix(true_labels, predicted))
    report = theirs.classification_report(
        true_labels, predicted, target_names=names, output_dict=True, zero_division=np.nan
    )
    for row in result.per_class:
        assert row.precision == report[row.name]["precision"]
        assert row.recall == report[row.name]["recall"]
        assert row.f1 == pytest.approx(report[row.name]["f1-score"])
        assert row.support == report[row.name]["support"]
        assert row.recall_low <= row.recall <= row.recall_high


def test_without_images_there_are_no_metrics() -> None:
    result = measure_predictions(np.empty((0, 2)), np.empty(0, int), ["a", "b"])
    assert result.values == {"test_images": 0.0}
    assert result.confusion == [[0, 0], [0, 0]]
    assert all(row.support == 0 and math.isnan(row.recall) for row in result.per_class)


def test_one_image_has_a_wide_interval_and_no_curve() -> None:
    result = measure_predictions(np.array([[0.2, 0.8]]), np.array([1]), ["a", "b"])
    assert result.values["test_accuracy"] == 1.0
    assert result.values["test_accuracy_low"] < 0.25
    assert "roc_auc" not in result.values and result.notes
    absent, present = result.per_class
    assert absent.support == 0 and math.isnan(absent.recall) and present.recall == 1.0


@pytest.mark.parametrize(("column", "accuracy"), [(1, 1.0), (0, 0.0)])
def test_all_correct_and_all_incorrect(column, accuracy) -> None:
    probabilities = np.full((50, 2), 0.1)
    probabilities[:, column] = 0.9
    result = measure_predictions(probabilities, np.ones(50, int), ["a", "b"])
    assert result.values["test_accuracy"] == accuracy
    assert 0 <= result.values["test_accuracy_low"] < result.values["test_accuracy_high"] <= 1


def test_ties_go_to_the_first_class_as_in_serving() -> None:
    result = measure_predictions(np.full((4, 5), 0.2), np.array([0, 1, 2, 3]), list("abcde"))
    assert result.values["test_accuracy"] == 0.25
    assert result.values["test_top3_accuracy"] == 0.75


def test_roc_points_go_from_0_to_1_and_are_finite() -> None:
    probabilities, true_labels = soft(np.random.default_rng(1), 200, 4)
    false_rate, true_rate, threshold = roc_points(probabilities, true_labels)
    assert (false_rate[0], true_rate[0]) == (0, 0) and (false_rate[-1], true_rate[-1]) == (1, 1)
    assert np.isfinite(threshold).all() and threshold[0] == 1.0
    one_hot = np.eye(4)[true_labels]
    assert theirs.auc(false_rate, true_rate) == pytest.approx(
        theirs.roc_auc_score(one_hot, probabilities, average="micro")
    )


def test_roc_auc_skips_classes_without_images() -> None:
    probabilities, true_labels = soft(np.random.default_rng(2), 200, 4)
    true_labels[true_labels == 3] = 0
    present = [theirs.roc_auc_score(true_labels == k, probabilities[:, k]) for k in range(3)]
    assert roc_auc(probabilities, true_labels) == pytest.approx(np.mean(present))


def test_roc_auc_of_fewer_images_than_classes() -> None:
    probabilities, _ = soft(np.random.default_rng(3), 3, 6)
    true_labels = np.array([4, 5, 5])
    areas = [theirs.roc_auc_score(true_labels == k, probabilities[:, k]) for k in (4, 5)]
    assert roc_auc(probabilities, true_labels) == pytest.approx(np.mean(areas))
