"""The default rule: a useless model never passes it, a sound one does, even on few images."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import f1_score

from components.evaluate.assessment import Cost, LabeledLogits, assess
from components.evaluate.gate.baseline import (
    CONFIDENCE,
    ClassCount,
    compare_with_constant,
    recall_bounds,
)
from components.evaluate.gate.gate import Evidence, apply_gate
from components.resolve.step_options import step_options
from pipelines.recipes.default_arguments import DEFAULTS
from regraft_core.formats.option_parsing import select_options
from regraft_core.formats.options.evaluate import GateOptions
from regraft_core.formats.options.train_head import HeadOptions


def assessed(true_labels, predicted, classes: int | None = None, **options):
    """Assess a model with these predictions for the test images."""
    true_labels, predicted = np.asarray(true_labels), np.asarray(predicted)
    classes = classes or int(true_labels.max()) + 1
    test = LabeledLogits(4.0 * np.eye(classes)[predicted], true_labels)
    names = [f"class {k}" for k in range(classes)]
    return assess(test, test, names, GateOptions(**options), cost=Cost())


def failed(true_labels, predicted, classes: int | None = None, **options) -> list[str]:
    """Return the checks that fail, by the counts alone, which is faster than all metrics."""
    true_labels, predicted = np.asarray(true_labels), np.asarray(predicted)
    classes = classes or int(true_labels.max()) + 1
    images = np.bincount(true_labels, minlength=classes)
    correct = np.bincount(true_labels[predicted == true_labels], minlength=classes)
    given = np.bincount(predicted, minlength=classes)
    counts = [
        ClassCount(f"class {k}", int(correct[k]), int(images[k]), int(given[k]))
        for k in range(classes)
    ]
    gate = GateOptions(**options)
    evidence = Evidence(
        images=len(true_labels),
        accuracy=0.0,
        accuracy_low=0.0,
        baseline=compare_with_constant(counts, gate.optimize),
        recall_bounds=recall_bounds(counts),
    )
    return [check.name for check in apply_gate(evidence, gate).checks if not check.passed]


def guesses(true_labels, accuracies, seed: int = 0):
    """Return predictions that are correct with the probability of each class."""
    rng = np.random.default_rng(seed)
    correct = rng.random(len(true_labels)) < np.asarray(accuracies)[true_labels]
    shift = rng.integers(1, len(accuracies), len(true_labels))
    return np.where(correct, true_labels, (true_labels + shift) % len(accuracies))


@pytest.mark.parametrize("counts", [(1, 1), (3, 3), (50, 50), (99, 1), (7, 2, 90), (5,) * 30])
@pytest.mark.parametrize("objective", ["accuracy", "balanced-accuracy", "macro-f1"])
def test_a_constant_prediction_never_passes(counts, objective) -> None:
    true_labels = np.repeat(np.arange(len(counts)), counts)
    for predicted in range(len(counts)):
        names = failed(true_labels, np.full(len(true_labels), predicted), optimize=objective)
        assert "baseline" in names


def test_a_test_split_of_one_class_shows_nothing() -> None:
    assert failed([0] * 30, [0] * 30, classes=2) == ["baseline"]


def test_a_model_of_three_percent_on_200_classes_is_rejected() -> None:
    true_labels = np.repeat(np.arange(200), 3)
    predicted = guesses(true_labels, [0.03] * 200)
    # It is better than a constant prediction; the recalls of all classes together are too low.
    (check,) = (c for c in assessed(true_labels, predicted).verdict.checks if not c.passed)
    assert check.name == "recall floor"
    assert "(all classes: " in check.received and " of 600)" in check.received


@pytest.mark.parametrize(("images", "rejected"), [(1, False), (10, False), (20, True), (60, True)])
def test_a_recall_of_0_is_rejected_with_enough_test_images(images, rejected) -> None:
    true_labels = np.repeat([0, 1, 2], [100, 100, images])
    predicted = np.where(true_labels == 2, 0, true_labels)
    assert failed(true_labels, predicted) == (["recall floor"] if rejected else [])
    assert failed(true_labels, predicted, recall_floor=0) == []


@pytest.mark.parametrize(
    ("counts", "accuracy"),
    [((3,) * 8, 0.7), ((36,) * 10, 0.95), ((4, 4), 0.98), ((1, 1, 1), 1.0), ((1, 1), 1.0),
     ((200,) * 10, 0.35), ((1,) * 1000, 0.3), ((95, 5), 1.0)],
)  # fmt: skip
def test_sound_models_pass(counts, accuracy) -> None:
    true_labels = np.repeat(np.arange(len(counts)), counts)
    runs = [
        failed(true_labels, guesses(true_labels, [accuracy] * len(counts), seed))
        for seed in range(20)
    ]
    assert sum(map(bool, runs)) <= 1


def test_guessing_passes_in_at_most_five_percent_of_runs() -> None:
    rng = np.random.default_rng(5)
    true_labels, passed, runs = np.repeat(np.arange(4), 30), 0, 300
    for _ in range(runs):
        passed += not failed(true_labels, rng.integers(0, 4, 120))
    assert passed / runs <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / runs)


def test_no_class_fails_by_chance_however_many_there_are() -> None:
    # Every recall is at the floor, so each rejection is an error.
    rng, runs, rejected = np.random.default_rng(6), 400, 0
    for _ in range(runs):
        counts = [ClassCount(str(k), int(n), 20) for k, n in enumerate(rng.binomial(20, 0.2, 100))]
        rejected += recall_bounds(counts)[0].high < 0.2
    assert rejected / runs <= 0.05


def test_the_upper_bounds_are_those_of_the_exact_interval() -> None:
    bounds = recall_bounds([ClassCount("a", 3, 10), ClassCount("b", 0, 7), ClassCount("c", 0, 0)])
    exact = {"a": (3, 10), "b": (0, 7), "all classes": (3, 17)}
    assert {bound.name for bound in bounds} == set(exact)
    for bound in bounds:
        test = stats.binomtest(*exact[bound.name], alternative="less")
        level = 1 - (1 - CONFIDENCE) / 3
        assert bound.high == pytest.approx(test.proportion_ci(level, "exact").high)
    assert [b.high for b in bounds] == sorted(b.high for b in bounds)


def test_an_objective_of_balanced_accuracy_is_measured_by_the_mean_recall() -> None:
    # 97% of a split with 97% of one class: as accurate as a constant prediction, and informative.
    true_labels = np.repeat([0, 1], [970, 30])
    predicted = np.r_[np.zeros(950, int), np.ones(20, int), np.ones(20, int), np.zeros(10, int)]
    assert failed(true_labels, predicted) == ["baseline"]
    assert failed(true_labels, predicted, optimize="balanced-accuracy") == []
    metrics = assessed(true_labels, predicted, optimize="balanced-accuracy").metrics.values
    assert metrics["objective_score"] == pytest.approx((950 / 970 + 20 / 30) / 2)
    assert metrics["constant_score"] == 0.5
    assert 0.5 < metrics["objective_score_low"] < metrics["objective_score"]


def test_an_objective_of_macro_f1_is_measured_by_it() -> None:
    true_labels = np.repeat([0, 1], [970, 30])
    predicted = np.r_[np.zeros(950, int), np.ones(20, int), np.ones(20, int), np.zeros(10, int)]
    assert failed(true_labels, predicted, optimize="macro-f1") == []
    result = assessed(true_labels, predicted, optimize="macro-f1")
    metrics = result.metrics.values
    assert metrics["objective_score"] == pytest.approx(metrics["macro_f1"])
    assert metrics["constant_score"] == pytest.approx(
        f1_score(true_labels, np.zeros(1000), average="macro")
    )
    (check,) = (check for check in result.verdict.checks if check.name == "baseline")
    assert "(macro F1 of always predicting class 0)" in check.expected


@pytest.mark.parametrize("objective", ["accuracy", "balanced-accuracy", "macro-f1"])
@pytest.mark.parametrize("weights", ["off", "balanced"])
def test_head_and_gate_have_the_objective_of_the_run(weights, objective) -> None:
    values = DEFAULTS | {"class_weights": weights, "optimize": objective, "run_id": ""}
    steps = step_options(values)
    head = select_options(HeadOptions, steps["train_head"])
    gate = select_options(GateOptions, steps["evaluate"])
    assert head.optimize == gate.optimize == objective


def test_the_lower_bound_of_a_mean_recall_covers_it() -> None:
    rng, sizes, recalls = np.random.default_rng(8), np.array([5, 20, 80]), np.array([0.6, 0.9, 0.7])
    runs = 2000
    lows = [
        compare_with_constant(
            [ClassCount("", int(hit), int(n)) for hit, n in zip(hits, sizes, strict=True)],
            "balanced-accuracy",
        ).score_low
        for hits in rng.binomial(sizes, recalls, (runs, 3))
    ]
    assert np.mean(np.array(lows) <= recalls.mean()) >= 0.93


@pytest.mark.parametrize("sizes", [(20, 20, 20), (10, 60, 200)])
def test_the_lower_bound_of_the_mean_f1_covers_it(sizes) -> None:
    rng, runs = np.random.default_rng(9), 1000
    chances = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.0, 0.2, 0.8]])
    rows = zip(sizes, chances, strict=True)
    confusions = np.array([rng.multinomial(n, p, runs) for n, p in rows])
    expected = chances * np.array(sizes)[:, None]
    f1 = 2 * expected.diagonal() / (np.array(sizes) + expected.sum(axis=0))
    lows = [
        compare_with_constant(
            [ClassCount("", int(c[k, k]), int(c[k].sum()), int(c[:, k].sum())) for k in range(3)],
            "macro-f1",
        ).score_low
        for c in confusions.transpose(1, 0, 2)
    ]
    assert np.mean(np.array(lows) <= f1.mean()) >= 0.94


def test_the_rule_by_the_point_estimate() -> None:
    true_labels = np.repeat([0, 1], [10, 10])
    predicted = np.r_[np.zeros(10, int), np.zeros(9, int), 1]
    assert failed(true_labels, predicted) == ["baseline"]
    assert failed(true_labels, predicted, baseline_rule="point") == []
    assert failed(true_labels, np.zeros(20, int), baseline_rule="off") == []
