"""The choice among candidates: by validation only, the head unless another is better than it."""

from __future__ import annotations

import math

import pytest

from components.evaluate.gate.selection import choose, list_results
from regraft_core.runtime.errors import InputError

NAN = math.nan


BETTER, CHANCE = (
    {"against_head": {"images": 200, "difference": difference, "standard_error": 0.02}}
    for difference in (-0.05, -0.04)
)


@pytest.mark.parametrize(
    ("ended", "chosen", "head_accuracy"),
    [
        ([("head", 0.9, 0.4), ("top", 0.95, 0.35)], 1, 0.9),
        ([("top", 0.95, 0.35), ("head", 0.9, 0.4)], 0, 0.9),
        ([("head", 0.95, 0.4), ("top", 0.9, 0.35)], 0, 0.95),
        ([("full", 0.95, 0.35), ("top", 0.95, 0.35), ("head", 0.95, 0.4)], 1, 0.95),
        ([("full", 0.95, 0.30), ("top", 0.96, 0.35), ("head", 0.9, 0.4)], 0, 0.9),
        ([("top", NAN, 0.35), ("head", 0.1, 2.0)], 1, 0.1),
        ([("top", 0.2, 0.35), ("head", NAN, NAN)], 0, -math.inf),
        ([("top", 0.2, NAN), ("full", 0.2, 3.0)], 1, -math.inf),
        ([("top", NAN, NAN)], 0, -math.inf),
        ([("top", NAN, NAN), ("head", NAN, NAN)], 1, -math.inf),
        ([("head", 0.5, 0.5)], 0, 0.5),
    ],
)
def test_choice_among_candidates_that_are_better_than_the_head(
    candidate_of, ended, chosen, head_accuracy
) -> None:
    choice = choose([candidate_of(*one, measurements=BETTER) for one in ended])
    assert (choice.index, choice.head_accuracy) == (chosen, head_accuracy)


@pytest.mark.parametrize(("measurements", "chosen"), [(BETTER, 1), (CHANCE, 0), ({}, 0)])
def test_the_head_is_kept_unless_another_is_significantly_better(
    candidate_of, measurements, chosen
) -> None:
    candidates = [
        candidate_of("head", 0.9),
        candidate_of("top", 0.95, 0.4, measurements=measurements),
    ]
    assert choose(candidates).index == chosen
    assert choose(candidates[1:]).index == 0


def test_a_line_says_what_a_candidate_cost_and_changed(candidate_of) -> None:
    head = candidate_of("head", 0.9)
    top = candidate_of("top", 0.95, 0.45, measurements=CHANCE)
    cost = "top took 1 s and changed the log loss on validation by -0.0400 ± 0.0200 per image"
    assert choose([head, top]).reasons == [f"head kept: {cost}"]
    assert choose([top]).reasons == []
    top = candidate_of("top", 0.95, 0.45, measurements=BETTER)
    assert choose([head, top]).reasons == [f"top chosen: {cost.replace('0.0400', '0.0500')}"]


def test_a_line_says_why_a_candidate_was_not_trained(candidate_of) -> None:
    room = {"without_room": {"images": 15, "difference": -0.05, "standard_error": 0.04}}
    top = candidate_of("top", 0.9, measurements=room)
    (reason,) = choose([candidate_of("head", 0.9), top]).reasons
    assert reason.startswith("head kept: top was not trained: even a model without any loss")
    assert "on these 15 validation images (log loss -0.0500 ± 0.0400)" in reason


def test_a_candidate_below_its_own_head_is_chosen_only_without_another(candidate_of) -> None:
    below = candidate_of("top", 0.93, 0.2, measurements={"head_validation_accuracy": 0.95})
    above = candidate_of("full", 0.91, 0.3, measurements={"head_validation_accuracy": 0.90})
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
    searched = {"learning_rate": {"trials": [{}, {}, {}], "epochs": 2, "seconds": 3.0}}
    candidates = [candidate_of("head", 0.9), candidate_of("top", 0.95, measurements=searched)]
    rows = list_results(candidates, chosen)
    assert [row.strategy for row in rows] == ["head", "top"]
    assert [row.chosen for row in rows] == [chosen == 0, chosen == 1]
    assert rows[1].seconds == pytest.approx(8.0)
    assert [row.epochs for row in rows] == [0, 3 * 2 + 5]


def test_the_time_of_a_search_counts_all_its_trainings(candidate_of) -> None:
    searched = {"search": {"seconds": 120.0}}
    found = candidate_of("top", 0.95, requested_strategy="search", measurements=searched)
    assert list_results([found], 0)[0].seconds == pytest.approx(122.5)
