"""The choice among candidates: by validation only, ties to fewer layers, never below the head."""

from __future__ import annotations

import math

import pytest

from components.evaluate.gate.selection import choose, list_results
from regraft_core.runtime.errors import InputError

NAN = math.nan


@pytest.mark.parametrize(
    ("ended", "chosen", "head_accuracy"),
    [
        ([("head", 0.9), ("top", 0.95)], 1, 0.9),
        ([("top", 0.95), ("head", 0.9)], 0, 0.9),
        ([("head", 0.95), ("top", 0.9)], 0, 0.95),
        ([("full", 0.95), ("top", 0.95), ("head", 0.95)], 2, 0.95),
        ([("full", 0.95), ("top", 0.95), ("head", 0.9)], 1, 0.9),
        ([("full", 0.96), ("top", 0.95), ("head", 0.9)], 0, 0.9),
        ([("top", NAN), ("head", 0.1)], 1, 0.1),
        ([("top", 0.2), ("head", NAN)], 0, -math.inf),
        ([("top", NAN)], 0, -math.inf),
        ([("top", NAN), ("head", NAN)], 1, -math.inf),
        ([("head", 0.5)], 0, 0.5),
    ],
)
def test_choice(candidate_of, ended, chosen, head_accuracy) -> None:
    choice = choose([candidate_of(strategy, accuracy) for strategy, accuracy in ended])
    assert (choice.index, choice.head_accuracy) == (chosen, head_accuracy)


def test_ties_of_one_strategy_go_to_the_lower_loss(candidate_of) -> None:
    assert choose([candidate_of("top", 0.9, 0.4), candidate_of("top", 0.9, 0.3)]).index == 1
    assert choose([candidate_of("top", 0.9, NAN), candidate_of("top", 0.9, 0.3)]).index == 1


def test_a_candidate_below_its_own_head_is_chosen_only_without_another(candidate_of) -> None:
    below = candidate_of("top", 0.93, measurements={"head_validation_accuracy": 0.95})
    above = candidate_of("full", 0.91, measurements={"head_validation_accuracy": 0.90})
    assert choose([below, above]).index == 1
    single = choose([below])
    assert (single.index, single.head_accuracy) == (0, 0.95)


def test_a_candidate_equal_to_its_own_head_is_not_below_it(candidate_of) -> None:
    equal = candidate_of("top", 0.95, measurements={"head_validation_accuracy": 0.95})
    above = candidate_of("full", 0.93, measurements={"head_validation_accuracy": 0.90})
    assert choose([equal, above]).index == 0


def test_no_candidate_is_an_error() -> None:
    with pytest.raises(InputError, match="at least one candidate"):
        choose([])


@pytest.mark.parametrize("chosen", [0, 1])
def test_results_keep_the_order_and_mark_the_chosen(candidate_of, chosen) -> None:
    rows = list_results([candidate_of("head", 0.9), candidate_of("top", 0.95)], chosen)
    assert [row.strategy for row in rows] == ["head", "top"]
    assert [row.chosen for row in rows] == [chosen == 0, chosen == 1]
    assert rows[1].seconds == pytest.approx(5.0)
