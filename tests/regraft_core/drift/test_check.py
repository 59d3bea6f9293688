"""Drift on arrays: false alarms at the stated rate, alarms for changes, and which test alarms."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom, fisher_exact, mannwhitneyu

from regraft_core.drift import check
from regraft_core.drift.check import CheckOptions, Observed, check_drift, standardized
from regraft_core.drift.class_counts import class_counts_test
from regraft_core.drift.permutations import area_under_curve, comparable, lower_scores_test
from regraft_core.formats.drift_reference import DriftReference, make_reference

WIDTH, CLASSES = 12, 3
CENTERS = np.random.default_rng(9).normal(size=(CLASSES, WIDTH)) * 4


def draw(seed: int, count: int, weights: tuple[float, ...] = (1, 1, 1)) -> Observed:
    """Draw images of separate classes, with so many times as many of each."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(CLASSES, count, p=np.array(weights) / sum(weights))
    features = CENTERS[labels] + rng.normal(size=(count, WIDTH))
    return Observed(features, labels, -np.square(features - CENTERS[labels]).mean(axis=1))


def reference_of(images: Observed) -> DriftReference:
    counts = np.bincount(images.predicted, minlength=CLASSES)
    return make_reference(images.features, images.predicted, images.familiarity, -2.0, counts)


def alarms(reference: DriftReference, images: Observed, significance: float = 0.01) -> set[str]:
    tests = check_drift(reference, images, CheckOptions(significance))
    return {test.name for test in tests if test.alarm}


def test_false_alarms_are_as_rare_as_stated() -> None:
    count = sum(
        bool(alarms(reference_of(draw(2 * k, 40)), draw(2 * k + 1, 30), 0.1)) for k in range(60)
    )
    assert count <= binom.ppf(0.999, 60, 0.1)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda one: replace(one, features=one.features + 0.5), {"classifier", "mean_discrepancy"}),
        (lambda one: replace(one, features=one.features * 1.6), {"mean_discrepancy"}),
        (lambda one: replace(one, familiarity=one.familiarity - 0.5), {"familiarity"}),
    ],
)
def test_a_change_of_all_images_alarms_the_tests_that_see_it(change, expected) -> None:  # type: ignore[no-untyped-def]
    found = alarms(reference_of(draw(0, 200)), change(draw(1, 150)))
    assert expected <= found and "classes" not in found


def test_more_images_of_a_class_alarm_no_test_within_the_classes() -> None:
    found = alarms(reference_of(draw(0, 200)), draw(1, 150, weights=(4, 1, 1)))
    assert found == {"classes", "combined"}


def test_a_new_class_alarms_the_tests_of_the_features() -> None:
    images = draw(1, 150)
    new = np.random.default_rng(2).normal(size=(30, WIDTH)) * 2  # between the centers
    features = np.concatenate([images.features[:120], new])
    found = alarms(reference_of(draw(0, 200)), replace(images, features=features))
    assert "classes" not in found
    assert found & {"classifier", "mean_discrepancy"}


def test_a_check_is_the_same_for_the_same_seed_only() -> None:
    reference, images = reference_of(draw(0, 80)), draw(1, 60)
    one, again, other = (
        check_drift(reference, images, CheckOptions(seed=seed)) for seed in (0, 0, 1)
    )
    assert one == again
    assert [test.p_value for test in one] != [test.p_value for test in other]
    assert [test.statistic for test in one[2:4]] == [test.statistic for test in other[2:4]]


def test_images_without_scores_or_of_other_classes_leave_fewer_tests() -> None:
    images = draw(1, 60)
    unknown = replace(images, familiarity=np.full(60, np.nan))
    reference = reference_of(draw(0, 80, weights=(1, 1, 0)))
    assert [t.name for t in check_drift(reference, unknown)] == [
        "classes", "classifier", "mean_discrepancy", "combined"
    ]  # fmt: skip
    elsewhere = replace(images, predicted=np.full(60, 2))
    (only,) = check_drift(reference, elsewhere)
    assert only.name == "classes" and only.alarm and only.statistic == 1.0


def test_equal_features_are_no_drift() -> None:
    constant = Observed(np.ones((60, 4)), np.zeros(60, int), np.full(60, -1.0))
    reference = make_reference(
        constant.features, constant.predicted, constant.familiarity, -2.0, np.array([60])
    )
    assert [test.p_value for test in check_drift(reference, constant)] == [1.0] * 5
    assert not standardized(constant.features, constant.predicted).any()


def test_scores_that_some_images_lack_still_count() -> None:
    images = draw(1, 150)
    lower = replace(images, familiarity=images.familiarity - 0.5)
    lower.familiarity[::7] = np.nan
    assert "familiarity" in alarms(reference_of(draw(0, 200)), lower)


def test_of_many_images_a_sample_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "MAX_ROWS", 100)
    reference, images = reference_of(draw(0, 2500)), draw(1, 2500)
    tracemalloc.start()
    assert alarms(reference, images) == set()
    shifted = replace(images, features=images.features + 1)
    assert {"classifier", "mean_discrepancy"} <= alarms(reference, shifted)
    assert tracemalloc.get_traced_memory()[1] < 4e7  # the products of all images are 100 MB
    tracemalloc.stop()


def test_changes_that_each_test_sees_a_little_are_found_together() -> None:
    alone, together = 0, 0
    for seed in range(5, 9):
        images = draw(100 + seed, 150, weights=(2, 1, 1))
        changed = replace(images, features=images.features + 0.12,
                          familiarity=images.familiarity - 0.12)  # fmt: skip
        *single, combined = check_drift(reference_of(draw(seed, 200)), changed)
        alone += min(test.p_value for test in single) * len(single) <= 0.01
        together += combined.alarm
    assert together > alone


def test_scores_are_compared_as_by_the_rank_sum_test() -> None:
    rng = np.random.default_rng(3)
    reference, images = rng.normal(size=40), rng.normal(size=30) - 0.6
    zeros = np.zeros(70, int)
    labels = comparable(zeros[:40], zeros[:30], permutations=1999, seed=0)
    assert labels is not None
    found = lower_scores_test(np.concatenate([reference, images]), labels)
    exact = mannwhitneyu(reference, images, alternative="greater")
    assert found.statistic == pytest.approx(exact.statistic / (40 * 30))
    assert found.p_values[0] == pytest.approx(exact.pvalue, abs=0.01)


def test_the_area_is_of_pairs_within_a_class() -> None:
    scores = np.array([1.0, 2.0, 2.0, 10.0, 11.0, 5.0])[:, None]
    labels = np.array([False, True, False, True, False, True])[:, None]
    classes = np.array([0, 0, 0, 1, 1, 2])  # class 2 has no pair
    # Class 0: 1.5 of 2 pairs with weight 1/4; class 1: 0 of 1 pairs with weight 1/3.
    expected = (1.5 / 4) / (2 / 4 + 1 / 3)
    assert area_under_curve(scores, labels, classes) == pytest.approx(expected)


def test_class_counts_are_compared_as_by_the_exact_test() -> None:
    reference, images = np.repeat([0, 1], (30, 10)), np.repeat([0, 1], (10, 12))
    found = class_counts_test(reference, images, 2, 9999, seed=0)
    assert found.p_values[0] == pytest.approx(fisher_exact([[30, 10], [10, 12]]).pvalue, abs=0.01)
    assert found.statistic == pytest.approx(0.75 - 10 / 22)
