"""The gate's arithmetic: a table of cases with equality, NaN, missing metrics and no champion."""

from __future__ import annotations

import functools
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from components.evaluate.gate.baseline import ClassCount, compare_with_constant, recall_bounds
from components.evaluate.gate.gate import NO_CHAMPION, Evidence, apply_gate
from components.evaluate.metrics.robustness import CorruptionDrop
from components.evaluate.metrics.statistics import compare
from regraft_core.formats.options.evaluate import GateOptions

COUNTS = [ClassCount("cat", 196, 200), ClassCount("dog", 144, 160)]
GOOD = Evidence(
    images=360,
    accuracy=0.97,
    accuracy_low=0.95,
    recalls={"cat": 0.98, "dog": 0.9},
    calibration_error=0.02,
    model_mb=14.0,
    latency_ms=11.0,
    baseline=compare_with_constant(COUNTS, "accuracy"),
    recall_bounds=recall_bounds(COUNTS),
)
NAN = math.nan
BLURRED = CorruptionDrop("blur", 1, 100, 1.0, 0.75, 0.25, 0.2, 0.3)


@functools.cache
def against(wins: int, losses: int, images: int = 360):
    ties = images - wins - losses
    correct = np.repeat([True, False, True], [wins, losses, ties])
    champion_correct = np.repeat([False, True, True], [wins, losses, ties])
    return compare(correct, champion_correct, name="digits version 3")


CASES = [
    # evidence, options, accepted, the failed checks
    ({}, {}, True, []),
    ({}, {"min_accuracy": 0.95}, True, []),
    ({}, {"min_accuracy": 0.9500001}, False, ["accuracy"]),
    ({}, {"min_accuracy": 0.97, "accuracy_rule": "point"}, True, []),
    ({}, {"min_accuracy": 0.9700001, "accuracy_rule": "point"}, False, ["accuracy"]),
    ({"accuracy": NAN}, {}, False, ["accuracy"]),
    ({"accuracy_low": NAN}, {}, False, ["accuracy"]),
    ({"accuracy_low": NAN}, {"accuracy_rule": "point"}, False, ["accuracy"]),
    ({"accuracy": None}, {}, False, ["accuracy"]),
    ({"accuracy_low": None}, {}, False, ["accuracy"]),
    ({"images": 0, "accuracy": None, "accuracy_low": None}, {}, False,
     ["test images", "accuracy"]),
    ({"images": 0}, {}, False, ["test images"]),
    ({"images": 1}, {}, True, []),
    ({"not_finite": 1}, {}, False, ["predictions"]),
    ({"corruption_drops": [BLURRED]}, {"corruption_images": 9, "max_corruption_drop": 0.25}, True,
     []),
    ({"corruption_drops": [BLURRED]}, {"corruption_images": 9, "max_corruption_drop": 0.24}, False,
     ["accuracy drop by blur"]),
    ({}, {"corruption_images": 9, "max_corruption_drop": 0.5}, False,
     ["accuracy drop by corruption"]),
    ({"baseline": None}, {}, False, ["baseline"]),
    ({"baseline": compare_with_constant([], "accuracy")}, {}, False, ["baseline"]),
    ({"baseline": None}, {"baseline_rule": "off"}, True, []),
    ({"recall_bounds": ()}, {}, False, ["recall floor"]),
    ({"recall_bounds": ()}, {"recall_floor": 0}, True, []),
    ({}, {"min_class_recall": 0.9}, True, []),
    ({}, {"min_class_recall": 0.91}, False, ["recall of dog"]),
    ({}, {"min_recall_by_class": {"dog": 0.9, "cat": 0.98}}, True, []),
    ({}, {"min_recall_by_class": {"cat": 0.99}}, False, ["recall of cat"]),
    ({}, {"min_class_recall": 0.95, "min_recall_by_class": {"dog": 0.5}}, True, []),
    ({}, {"min_recall_by_class": {"cow": 0.5}}, False, ["recall of cow"]),
    ({"recalls": {"cat": NAN}}, {"min_class_recall": 0.1}, False, ["recall of cat"]),
    ({"recalls": {"cat": None}}, {"min_class_recall": 0.1}, False, ["recall of cat"]),
    ({"recalls": {"cat": NAN}}, {}, True, []),
    ({}, {"max_calibration_error": 0.02}, True, []),
    ({}, {"max_calibration_error": 0.0199}, False, ["calibration error"]),
    ({"calibration_error": NAN}, {"max_calibration_error": 0.5}, False, ["calibration error"]),
    ({"calibration_error": None}, {"max_calibration_error": 0.5}, False, ["calibration error"]),
    ({"calibration_error": None}, {}, True, []),
    ({}, {"max_model_mb": 14.0}, True, []),
    ({}, {"max_model_mb": 13.9}, False, ["model size"]),
    ({}, {"max_model_mb": 0.5}, False, ["model size"]),
    ({"model_mb": None}, {"max_model_mb": 13.9}, False, ["model size"]),
    ({}, {"max_latency_ms": 11.0}, True, []),
    ({}, {"max_latency_ms": 10.0}, False, ["latency"]),
    ({}, {"max_latency_ms": 0.5}, False, ["latency"]),
    ({"latency_ms": NAN}, {"max_latency_ms": 10.0}, False, ["latency"]),
    ({"head_validation_accuracy": 0.9, "validation_accuracy": 0.9}, {}, True, []),
    ({"head_validation_accuracy": 0.9, "validation_accuracy": 0.89}, {}, False, ["candidate"]),
    ({"head_validation_accuracy": 0.9, "validation_accuracy": NAN}, {}, False, ["candidate"]),
    # Against the champion: equal, better, worse but not significantly, significantly worse.
    ({"champion": against(0, 0)}, {}, True, []),
    ({"champion": against(5, 5)}, {}, True, []),
    ({"champion": against(9, 1)}, {}, True, []),
    ({"champion": against(1, 4)}, {}, True, []),
    ({"champion": against(0, 4)}, {}, True, []),
    ({"champion": against(0, 5)}, {}, False, ["champion"]),
    ({"champion": against(2, 12)}, {}, False, ["champion"]),
    ({"champion": against(0, 5)}, {"champion_significance": 0.01}, True, []),
    ({"champion": against(0, 0)}, {"champion_policy": "better"}, False, ["champion"]),
    ({"champion": against(4, 0)}, {"champion_policy": "better"}, False, ["champion"]),
    ({"champion": against(5, 0)}, {"champion_policy": "better"}, True, []),
    ({"champion": against(0, 5)}, {"champion_policy": "better"}, False, ["champion"]),
    # 1/32 is the probability of five wins, or losses, of five.
    ({"champion": against(0, 5)}, {"champion_significance": 1 / 32}, True, []),
    ({"champion": against(5, 0)}, {"champion_significance": 1 / 32, "champion_policy": "better"},
     False, ["champion"]),
    ({"champion": against(1, 4, 300)}, {"champion_margin": 0.01}, True, []),
    ({"champion": against(0, 4, 300)}, {"champion_margin": 0.01}, False, ["champion margin"]),
    ({"champion": against(0, 3, 300)}, {"champion_margin": 0.0}, False, ["champion margin"]),
    ({"champion": against(3, 3, 300)}, {"champion_margin": 0.0}, True, []),
    ({"champion": against(0, 0, 0)}, {}, False, ["champion"]),
    ({"champion": against(0, 0, 0)}, {"champion_policy": "better"}, False, ["champion"]),
    ({"champion": against(0, 0, 1)}, {}, True, []),
    ({}, {"champion_policy": "better", "champion_margin": 0.0}, True, []),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "options", "accepted", "failed"), CASES)
def test_the_verdict(changes, options, accepted, failed) -> None:
    verdict = apply_gate(replace(GOOD, **changes), GateOptions(**options))
    assert [check.name for check in verdict.checks if not check.passed] == failed
    assert verdict.accepted is accepted


@pytest.mark.parametrize("policy", ["better", "not-worse"])
def test_a_missing_champion_is_reported(policy) -> None:
    checks = apply_gate(GOOD, GateOptions(champion_policy=policy)).checks
    (champion,) = (check for check in checks if check.name == "champion")
    assert champion.expected == f"{policy.replace('-', ' ')} than the champion"
    assert champion.received == NO_CHAMPION


def test_every_check_lists_what_was_expected_and_received() -> None:
    verdict = apply_gate(
        replace(GOOD, champion=against(2, 12)),
        GateOptions(min_accuracy=0.99, min_class_recall=0.8, max_calibration_error=0.1),
    )
    checks = {c.name: (c.expected, c.received, c.passed) for c in verdict.checks}
    assert checks["accuracy"] == (
        "at least 0.99 (lower bound of the 95% interval)", "0.95", False)  # fmt: skip
    assert checks["recall of cat"][2] and checks["calibration error"][2]
    assert "digits version 3" in checks["champion"][1]
    assert "2 wins, 12 losses" in checks["champion"][1]


def test_disabled_checks_are_not_listed() -> None:
    verdict = apply_gate(replace(GOOD, champion=against(0, 0)), GateOptions())
    assert [check.name for check in verdict.checks] == [
        "test images", "accuracy", "baseline", "recall floor", "champion"]  # fmt: skip
    off = GateOptions(baseline_rule="off", recall_floor=0)
    verdict = apply_gate(replace(GOOD, champion=against(0, 0)), off)
    assert [check.name for check in verdict.checks] == ["test images", "accuracy", "champion"]


@pytest.mark.parametrize("limit", [0.1, 0.9])
def test_a_metric_that_differs_clearly_from_the_limit_is_shown_with_four_digits(limit) -> None:
    verdict = apply_gate(replace(GOOD, accuracy_low=0.123456), GateOptions(min_accuracy=limit))
    (check,) = (c for c in verdict.checks if c.name == "accuracy")
    assert check.received == "0.1235"


def test_a_metric_just_below_the_limit_is_not_shown_as_the_limit() -> None:
    verdict = apply_gate(replace(GOOD, accuracy_low=0.94999999), GateOptions(min_accuracy=0.95))
    (check,) = (c for c in verdict.checks if c.name == "accuracy")
    assert not check.passed and check.received == "0.94999999"


def test_a_metric_just_above_the_limit_is_not_shown_as_the_limit() -> None:
    verdict = apply_gate(replace(GOOD, latency_ms=10.000001), GateOptions(max_latency_ms=10.0))
    (check,) = (c for c in verdict.checks if c.name == "latency")
    assert not check.passed and check.received == "10.000001 ms per image"


@pytest.mark.parametrize("images", [60, 360])
def test_an_equal_model_is_rejected_at_the_rate_of_the_exact_test(images) -> None:
    random = np.random.default_rng(11)
    options = GateOptions(champion_significance=0.05)
    rejected, runs = 0, 4000
    for wins, losses, _ in random.multinomial(images, [0.06, 0.06, 0.88], size=runs):
        verdict = apply_gate(replace(GOOD, champion=against(wins, losses, images)), options)
        rejected += not verdict.accepted
    # Over the number of images on which the models differ: the probability of so many losses that
    # the exact test rejects.
    expected = 0.0
    for different in range(images + 1):
        tails = stats.binom.sf(np.arange(different + 1) - 1, different, 0.5)
        rate = max(tails[tails < 0.05], default=0.0)
        expected += stats.binom.pmf(different, images, 0.12) * rate
    assert expected <= 0.05
    # Within three standard errors of the simulation.
    assert rejected / runs == pytest.approx(expected, abs=3 * math.sqrt(0.05 * 0.95 / runs))


def test_a_clearly_worse_model_is_rejected() -> None:
    random = np.random.default_rng(12)
    rejected, runs = 0, 1000
    for wins, losses, _ in random.multinomial(360, [0.02, 0.10, 0.88], size=runs):
        rejected += not apply_gate(
            replace(GOOD, champion=against(wins, losses, 360)), GateOptions()
        ).accepted
    assert rejected / runs > 0.98
