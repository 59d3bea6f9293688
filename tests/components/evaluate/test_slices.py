"""Accuracy by slice, and its check: the worst first, few images, many slices by chance."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom

from components.evaluate.assessment import Cost, LabeledLogits, Slices, assess
from components.evaluate.gate.slice_check import check_slices, needed_images
from components.evaluate.metrics.slices import (
    SliceMetrics,
    measure_slices,
    probabilities_by_chance,
)
from regraft_core.formats.options.evaluate import GateOptions
from regraft_core.training.intervals import wilson_interval

CLASSES = ["cat", "dog"]


def slice_of(correct: int, images: int, value: str = "a") -> SliceMetrics:
    interval = wilson_interval(correct, images)
    return SliceMetrics("camera", value, images, correct, correct / images, *interval, [])


def test_slices_of_two_columns_are_measured_apart_the_worst_first() -> None:
    values = [("one", "north")] * 6 + [("two", "north")] * 3 + [("", "south")] * 3
    true_labels = np.array([0, 1] * 6)
    predicted = true_labels.copy()
    predicted[[6, 7, 8]] = 1, 0, 1
    predicted[11] = -1
    found = measure_slices(["camera", "site"], values, predicted, true_labels, CLASSES)
    shown = [(one.name, one.correct, one.images) for one in found]
    assert shown == [
        ("camera two", 0, 3), ("site north", 6, 9), ("camera (missing)", 2, 3),
        ("site south", 2, 3), ("camera one", 6, 6),
    ]  # fmt: skip
    assert (found[1].accuracy, (found[1].low, found[1].high)) == (6 / 9, wilson_interval(6, 9))
    worst = found[2].recalls[0]
    assert (worst.name, worst.correct, worst.images) == ("dog", 1, 2)
    assert (worst.low, worst.high) == wilson_interval(1, 2)
    assert sum(one.images for one in found[1].recalls) == 9


class Counted(str):
    """A value that counts its comparisons."""

    compared = 0

    def __eq__(self, other: object) -> bool:
        Counted.compared += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


def test_each_image_is_compared_with_few_of_many_values() -> None:
    values = [(Counted(f"camera {k % 200}"),) for k in range(1000)]
    true_labels = np.zeros(1000, int)
    assert len(measure_slices(["camera"], values, true_labels, true_labels, CLASSES)) == 200
    assert Counted.compared < 10 * 1000


def test_a_probability_is_exact_and_adjusted_for_the_number_of_slices() -> None:
    slices = [slice_of(20, 30), slice_of(25, 30), slice_of(30, 30)]
    chances = probabilities_by_chance(slices, 0.9)
    single = [float(binom.cdf(k, 30, 0.9)) for k in (20, 25, 30)]
    assert chances == pytest.approx([3 * single[0], 2 * single[1], 1.0])
    # A slice that is less probable never has the higher adjusted probability.
    close = probabilities_by_chance([slice_of(25, 30), slice_of(25, 30)], 0.9)
    assert close == pytest.approx([2 * single[1]] * 2)
    assert probabilities_by_chance([], 0.9) == []


def test_good_slices_are_rejected_in_at_most_one_of_twenty_runs() -> None:
    """With twenty slices at the minimum; without the correction, it would be most runs."""
    rng, runs = np.random.default_rng(0), 100
    corrected = plain = 0
    for correct in rng.binomial(60, 0.9, (runs, 20)):
        (check,) = check_slices([slice_of(int(k), 60) for k in correct], 0.9)
        corrected += not check.passed
        plain += bool((binom.cdf(correct, 60, 0.9) < 0.05).any())
    assert corrected / runs < 0.05 + 4 * math.sqrt(0.05 * 0.95 / runs)
    assert plain / runs > 0.4


def test_one_weak_slice_among_good_ones_fails_and_is_named() -> None:
    slices = [slice_of(30, 48, "b"), *(slice_of(58, 60, f"{k}") for k in range(9))]
    (check,) = check_slices(slices, 0.9)
    assert not check.passed
    assert check.received.startswith("below: camera b: 0.625 (30 of 48, p = ")
    assert "(p >= 0.05, Holm)" in check.expected


def test_small_slices_say_so_and_decide_nothing_alone() -> None:
    assert [needed_images(minimum) for minimum in (0.5, 0.9, 0.95, 1.0)] == [5, 29, 59, 1]
    small = slice_of(3, 5, "tiny")
    (check,) = check_slices([small, slice_of(60, 60)], 0.9)
    assert check.passed
    assert check.received == (
        "none below of 1 judged; too small to judge, with fewer than 29 images: "
        "camera tiny (3 of 5)"
    )
    (check,) = check_slices([small], 0.9)
    assert not check.passed, "nothing was judged"
    (check,) = check_slices([slice_of(0, 20), slice_of(60, 60)], 0.9)
    assert not check.passed, "even few images show this"
    assert list(check_slices([small], 0.0)) == []
    (check,) = check_slices([], 0.9)
    assert not check.passed and check.received == "not available"


def test_an_assessment_has_the_slices_of_its_test_images() -> None:
    rng = np.random.default_rng(2)
    true_labels = rng.integers(0, 2, 120)
    logits = np.eye(2)[true_labels] * 6
    logits[:30] = logits[:30, ::-1]
    logits[119] = np.nan
    cameras = Slices(["camera"], [("bad",)] * 30 + [("good",)] * 90, {
        "camera": {"bad": 60, "good": 90, "new": 9, "": 1},
    })  # fmt: skip
    result = assess(
        LabeledLogits(logits[30:90], true_labels[30:90]),
        LabeledLogits(logits, true_labels, cameras),
        CLASSES,
        GateOptions(min_accuracy_by_slice=0.9),
        cost=Cost(),
    )
    assert [(one.value, one.correct) for one in result.slices] == [("bad", 0), ("good", 89)]
    assert result.metrics.values["worst_slice_accuracy"] == 0.0
    failed = [check.name for check in result.verdict.checks if not check.passed]
    assert "accuracy by slice" in failed
    (check,) = [check for check in result.verdict.checks if check.name == "accuracy by slice"]
    assert check.received.endswith("; without a test image: camera new; camera (missing)")
    assert "slices without a test image: 2, such as camera new" in result.notes
