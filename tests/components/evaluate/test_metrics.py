"""Figures of known predictions, against scikit-learn's own functions and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn import metrics as theirs

from components.evaluate.metrics.classification import measure, roc_auc, roc_points
from components.evaluate.metrics.statistics import wilson_interval


def soft(rng: np.random.Generator, images: int, classes: int):
    true_labels = rng.integers(0, classes, images)
    logits = rng.normal(0, 1, (images, classes))
    logits[np.arange(images), true_labels] += 1.5
    probabilities = np.exp(logits)
    return probabilities / probabilities.sum(axis=1, keepdims=True), true_labels


@pytest.mark.parametrize("classes", [2, 4, 10])
def test_figures_equal_scikit_learns(classes) -> None:
    probabilities, true_labels = soft(np.random.default_rng(classes), 300, classes)
    names = [f"c{k}" for k in range(classes)]
    found = measure(probabilities, true_labels, names)
    predicted = probabilities.argmax(axis=1)
    metrics = found.metrics
    assert metrics["test_accuracy"] == theirs.accuracy_score(true_labels, predicted)
    right = int((predicted == true_labels).sum())
    assert (metrics["test_accuracy_low"], metrics["test_accuracy_high"]) == wilson_interval(
        right, 300
    )
    assert metrics["macro_f1"] == theirs.f1_score(true_labels, predicted, average="macro")
    assert metrics["log_loss"] == pytest.approx(
        -np.log(probabilities[np.arange(300), true_labels]).mean()
    )
    if classes == 2:
        assert metrics["roc_auc"] == pytest.approx(
            theirs.roc_auc_score(true_labels, probabilities[:, 1])
        )
    else:
        area = theirs.roc_auc_score(true_labels, probabilities, multi_class="ovr", average="macro")
        assert metrics["roc_auc"] == pytest.approx(area)
    for k in (3, 5):
        name = f"test_top{k}_accuracy"
        assert (name in metrics) == (k < classes)
        if k < classes:
            assert metrics[name] == theirs.top_k_accuracy_score(true_labels, probabilities, k=k)
    np.testing.assert_array_equal(found.confusion, theirs.confusion_matrix(true_labels, predicted))
    report = theirs.classification_report(
        true_labels, predicted, target_names=names, output_dict=True, zero_division=np.nan
    )
    for row in found.per_class:
        assert row.precision == report[row.name]["precision"]
        assert row.recall == report[row.name]["recall"]
        assert row.f1 == pytest.approx(report[row.name]["f1-score"])
        assert row.support == report[row.name]["support"]
        assert row.recall_low <= row.recall <= row.recall_high


def test_no_image_gives_no_figure_and_no_error() -> None:
    found = measure(np.empty((0, 2)), np.empty(0, int), ["a", "b"])
    assert found.metrics == {"test_images": 0.0}
    assert found.confusion == [[0, 0], [0, 0]]
    assert all(row.support == 0 and math.isnan(row.recall) for row in found.per_class)


def test_one_image_has_a_wide_interval_and_no_curve() -> None:
    found = measure(np.array([[0.2, 0.8]]), np.array([1]), ["a", "b"])
    assert found.metrics["test_accuracy"] == 1.0
    assert found.metrics["test_accuracy_low"] < 0.25
    assert "roc_auc" not in found.metrics and found.notes
    absent, present = found.per_class
    assert absent.support == 0 and math.isnan(absent.recall) and present.recall == 1.0


@pytest.mark.parametrize(("column", "accuracy"), [(1, 1.0), (0, 0.0)])
def test_all_right_and_all_wrong(column, accuracy) -> None:
    probabilities = np.full((50, 2), 0.1)
    probabilities[:, column] = 0.9
    found = measure(probabilities, np.ones(50, int), ["a", "b"])
    assert found.metrics["test_accuracy"] == accuracy
    assert 0 <= found.metrics["test_accuracy_low"] < found.metrics["test_accuracy_high"] <= 1


def test_ties_go_to_the_first_class_as_in_serving() -> None:
    found = measure(np.full((4, 5), 0.2), np.array([0, 1, 2, 3]), list("abcde"))
    assert found.metrics["test_accuracy"] == 0.25
    assert found.metrics["test_top3_accuracy"] == 0.75


def test_roc_points_run_from_nothing_to_everything_and_are_finite() -> None:
    probabilities, true_labels = soft(np.random.default_rng(1), 200, 4)
    false_rate, true_rate, threshold = roc_points(probabilities, true_labels)
    assert (false_rate[0], true_rate[0]) == (0, 0) and (false_rate[-1], true_rate[-1]) == (1, 1)
    assert np.isfinite(threshold).all()
    one_hot = np.eye(4)[true_labels]
    assert theirs.auc(false_rate, true_rate) == pytest.approx(
        theirs.roc_auc_score(one_hot, probabilities, average="micro")
    )


def test_roc_auc_leaves_out_classes_without_images() -> None:
    probabilities, true_labels = soft(np.random.default_rng(2), 200, 4)
    true_labels[true_labels == 3] = 0
    present = [theirs.roc_auc_score(true_labels == k, probabilities[:, k]) for k in range(3)]
    assert roc_auc(probabilities, true_labels) == pytest.approx(np.mean(present))
