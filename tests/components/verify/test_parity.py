from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from components.verify.parity import (
    ParityCase,
    Predicted,
    compare,
    decision_difference,
    difference,
    failure,
    parity_table,
    worst_by_protocol,
)
from regraft_core.formats.manifest_storage import MadeBy
from regraft_core.formats.manifests.parity import ParityManifest, ParityRow
from regraft_core.formats.served_thresholds import NO_THRESHOLDS, ServedThresholds


def predicted(label: str, *probabilities: float) -> Predicted:
    return Predicted(label, np.array(probabilities))


@pytest.mark.parametrize(
    ("expected", "served", "maximum"),
    [
        (predicted("a", 0.7, 0.3), predicted("a", 0.7, 0.3), 0.0),
        (predicted("a", 0.7, 0.3), predicted("a", 0.6, 0.4), 0.1),
        (predicted("a", 0.7, 0.3), predicted("b", 0.7, 0.3), 0.4),
        (predicted("a", 0.5, 0.5), predicted("b", 0.5, 0.5), 0.0),
        (predicted("a", 0.7, 0.3), predicted("a", math.nan, 0.3), math.inf),
        (predicted("a", 0.7, 0.3), predicted("a", 0.7, 0.2, 0.1), math.inf),
        (predicted("a", 0.7, 0.2, 0.1), predicted("a", 0.7, 0.3), math.inf),
        (predicted("b", 0.2, 0.5, 0.3), predicted("a", 0.2, 0.5, 0.3), 0.2),
    ],
)
def test_difference(expected: Predicted, served: Predicted, maximum: float) -> None:
    assert difference(expected, served) == pytest.approx(maximum)


SETS = ServedThresholds(set_probability=0.3)
ABSTENTION = ServedThresholds(accepted_confidence=0.6)


def decided(probability: float, *inside: bool, abstain: bool | None = None) -> Predicted:
    """Return a prediction of three classes with a set of labels, and perhaps abstention."""
    probabilities = np.array([probability, 0.3 - 1e-5, 0.7 - probability])
    return Predicted("a", probabilities, np.array(inside) if inside else None, abstain)


@pytest.mark.parametrize(
    ("expected", "served", "thresholds", "maximum"),
    [
        (decided(0.5, True, False, False), decided(0.5, True, False, False), SETS, 0.0),
        (decided(0.5, True, False, False), decided(0.5, True, True, False), SETS, 1e-5),
        (decided(0.5, True, False, False), decided(0.5, True, False, True), SETS, 0.1),
        (decided(0.5, True, False, False), decided(0.5, False, False, False), SETS, 0.2),
        (decided(0.5, True, False, False), decided(0.5), SETS, math.inf),
        (decided(0.5, True, False, False), decided(0.5, True, False), SETS, math.inf),
        (decided(0.5, abstain=True), decided(0.5, abstain=True), ABSTENTION, 0.0),
        (decided(0.5, abstain=True), decided(0.5, abstain=False), ABSTENTION, 0.1),
        (decided(0.5, abstain=True), decided(0.5), ABSTENTION, math.inf),
        (decided(0.5), decided(0.5), NO_THRESHOLDS, 0.0),
    ],
)
def test_other_decisions_count_by_their_distance_to_the_threshold(
    expected: Predicted, served: Predicted, thresholds: ServedThresholds, maximum: float
) -> None:
    assert decision_difference(expected, served, thresholds) == pytest.approx(maximum, abs=1e-9)
    rows = compare([ParityCase("one.png", "a", expected)], {"rest": [served]}, thresholds)
    assert rows[0].max_abs_diff["rest"] == pytest.approx(maximum, abs=1e-9)


def test_labels_that_tie_may_each_be_the_only_one_of_a_set() -> None:
    thresholds = ServedThresholds(set_probability=0.9)
    sides = [
        Predicted(label, np.array(row), thresholds.label_sets(np.array([row]))[0])  # type: ignore[index]
        for label, row in (("a", [0.5, 0.5 - 1e-6]), ("b", [0.5 - 1e-6, 0.5]))
    ]
    assert decision_difference(*sides, thresholds) == 0.0


@pytest.fixture
def cases() -> list[ParityCase]:
    return [
        ParityCase("one.png", "a", predicted("a", 0.9, 0.1)),
        ParityCase("two|.png", "b", predicted("b", 0.2, 0.8)),
    ]


def test_equal_predictions_pass(cases: list[ParityCase]) -> None:
    rows = compare(cases, {"grpc": [case.expected for case in cases]})
    assert worst_by_protocol(rows) == {"grpc": 0.0}
    assert failure(rows, 1e-9) is None
    assert rows[1].served == {"grpc": "b"}
    assert rows[1].probability == 0.8


def test_the_worst_image_is_named(cases: list[ParityCase]) -> None:
    trained = [case.expected for case in cases]
    rows = compare(cases, {"grpc": trained, "rest": [trained[0], predicted("a", 0.8, 0.2)]})
    assert worst_by_protocol(rows) == {"grpc": 0.0, "rest": pytest.approx(0.6)}
    problem = failure(rows, 1e-4)
    assert problem is not None
    assert problem.startswith("1 of 2 images")
    assert "worst: two|.png by rest: expected b within 0.0001, got a, difference 0.6" in problem


def compare_differences(differences: list[float]) -> list[ParityRow]:
    """Return rows of images whose served prediction has these differences."""
    cases = [
        ParityCase(f"{number}.png", "a", predicted("a", 0.75, 0.25))
        for number in range(len(differences))
    ]
    served = [predicted("a", 0.75 - value, 0.25 + value) for value in differences]
    return compare(cases, {"rest": served})


def test_a_difference_equal_to_the_tolerance_passes() -> None:
    assert failure(compare_differences([0.0, 0.25]), 0.25) is None
    problem = failure(compare_differences([0.0, 0.25, 0.5, 0.5, 0.5]), 0.25)
    assert problem is not None and problem.startswith("3 of 5 images")


def test_the_worst_of_one_image_and_of_none() -> None:
    assert worst_by_protocol(compare_differences([0.25])) == {"rest": 0.25}
    assert worst_by_protocol([]) == {}


def manifest_of(rows: list[ParityRow], **changes: Any) -> ParityManifest:
    return ParityManifest(
        digest="d",
        made_by=MadeBy(step="verify", version="0", seconds=0.0),
        saved_model_digest="s",
        engine="embedded",
        tolerance=1e-4,
        max_abs_diff=worst_by_protocol(rows),
        images=len(rows),
        passed=False,
        rows=rows,
        **changes,
    )


def test_the_table_shows_the_worst_first(cases: list[ParityCase]) -> None:
    trained = [case.expected for case in cases]
    rows = compare(cases, {"grpc": [trained[0], predicted("b", 0.3, 0.7)]})
    lines = parity_table(manifest_of(rows)).splitlines()
    assert "**failed**" in lines[2]
    assert lines[4] == "| image | true class | trained | probability | grpc | difference |"
    assert lines[5] == "|---|---|---|---|---|---|"
    assert lines[6] == r"| two\|.png | b | b | 0.8000 | b | 0.1 |"
    assert lines[7].startswith("| one.png | a | a | 0.9000")


def test_the_table_has_two_columns_for_each_protocol(cases: list[ParityCase]) -> None:
    trained = [case.expected for case in cases]
    lines = parity_table(manifest_of(compare(cases, {"grpc": trained, "rest": trained})))
    header, separator, row, *_ = lines.splitlines()[4:]
    assert header.endswith("| probability | grpc | difference | rest | difference |")
    assert separator == "|" + 8 * "---|"
    assert row.endswith("| a | 0 | a | 0 |")


def test_the_table_names_the_decisions_that_were_compared(cases: list[ParityCase]) -> None:
    rows = compare(cases, {"grpc": [case.expected for case in cases]})
    both = ServedThresholds(set_probability=0.2, accepted_confidence=0.9)
    for thresholds, names in ((both, "`label_set` and `abstain`"), (ABSTENTION, "`abstain`")):
        lines = parity_table(manifest_of(rows, decisions=thresholds.outputs)).splitlines()
        assert lines[4].startswith(f"The differences include {names}: ")
        assert lines[6].startswith("| image |")


@pytest.mark.parametrize("count", [11, 12, 13, 15])
def test_the_table_shows_at_most_12_images(count: int) -> None:
    rows = compare_differences([number / 64 for number in range(count)])
    lines = parity_table(manifest_of(rows)).splitlines()
    shown = [line.split(" ")[1] for line in lines[6:18]]
    expected = [f"{number}.png" for number in reversed(range(count))][:12]
    assert shown == expected
    others = ["", f"The other {count - 12} are in `parity.json`."] if count > 12 else []
    assert lines[18:] == others


def test_the_table_tells_device_precision_and_batches(cases: list[ParityCase]) -> None:
    rows = compare(cases, {"grpc": [case.expected for case in cases]})
    batches = {"trained": [32], "served": [1, 7]}
    manifest = manifest_of(rows, device="NVIDIA H100", batches=batches)
    lines = parity_table(manifest).splitlines()
    assert lines[4] == (
        "Device: NVIDIA H100; precision: float32; trained model: batches of 32; served model: "
        "batches of 1 and 7."
    )
    assert "ot verified" not in parity_table(manifest)
    with_tf32 = manifest.model_copy(update={"precision": "tf32", "verified": False})
    lines = parity_table(with_tf32).splitlines()
    assert lines[6].startswith("**Not verified: NVIDIA_TF32_OVERRIDE turns TF32 on, so predictions")


def selecting(probabilities: list[float], *selected: bool) -> Predicted:
    return Predicted("a", np.array(probabilities), selected=np.array(selected))


def test_labels_may_differ_only_at_their_own_thresholds() -> None:
    thresholds = ServedThresholds(by_label=(0.5, 0.25))
    expected = selecting([0.9, 0.25], True, True)
    assert decision_difference(expected, selecting([0.9, 0.25], True, True), thresholds) == 0
    at_limit = decision_difference(expected, selecting([0.9, 0.2499], True, False), thresholds)
    assert at_limit == 0
    # The most probable label has no exception, unlike in a set that is never empty.
    far = decision_difference(expected, selecting([0.4, 0.25], False, True), thresholds)
    assert far == pytest.approx(0.4)
    without = Predicted("a", np.array([0.9, 0.25]))
    assert decision_difference(expected, without, thresholds) == math.inf
