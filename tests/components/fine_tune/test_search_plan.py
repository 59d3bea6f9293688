"""Which training of a search goes on: by its expected gain per second, without a model."""

from __future__ import annotations

from dataclasses import replace

import pytest

from components.fine_tune.rate_search import LEARNING_RATES
from components.fine_tune.search.first_rates import first_rates, later_rates
from components.fine_tune.search.plan import GROWTH, Series, choose_next, is_short_of_time
from components.fine_tune.search.trials import Trial, series_of, trainings_of
from regraft_core.training.paired_losses import PairedLosses

HEAD_LOSS = 1.0


def series(part: str, step_s: float, *points: tuple[int, float], end: str = "") -> Series:
    return Series(part, 2e-4, step_s, 0.0, list(points), end)


def chosen(left_s: float, *found: Series) -> tuple[str, int] | None:
    following = choose_next(found, left_s, HEAD_LOSS)
    return following and (following.series.part, following.steps)


def test_of_equal_gains_the_one_with_faster_steps_goes_on() -> None:
    fast, slow = series("top", 1.0, (16, 0.1)), series("full", 3.0, (16, 0.1))
    assert chosen(1000.0, fast, slow) == ("top", GROWTH * 16)
    assert chosen(1000.0, slow, fast) == ("top", GROWTH * 16)


def test_a_slow_part_goes_on_once_the_fast_one_no_longer_grows() -> None:
    fast = series("top", 1.0, (16, 0.1), (64, 0.101))
    slow = series("full", 3.0, (16, 0.05))
    assert chosen(1000.0, fast, slow) == ("full", GROWTH * 16)
    # It cannot pass the fast one in the time that is left.
    assert chosen(60.0, fast, slow) == ("top", 60)


def test_a_part_that_is_behind_goes_on_if_it_passes_in_the_end() -> None:
    fast = series("top", 1.0, (64, 0.1), (256, 0.1))
    slow = series("full", 3.0, (16, 0.04))
    assert chosen(1000.0, fast, slow) == ("full", GROWTH * 16)
    assert chosen(90.0, fast, slow) is None


def test_the_last_training_takes_all_time_if_another_would_be_shorter() -> None:
    assert chosen(16 * 2 * GROWTH, series("top", 1.0, (16, 0.1))) == ("top", 16 * 2 * GROWTH)
    assert chosen(16 * 20, series("top", 1.0, (16, 0.1))) == ("top", 16 * GROWTH)


def test_nothing_goes_on_without_time_or_gain() -> None:
    assert chosen(7.0, series("top", 1.0, (16, 0.1))) is None
    assert is_short_of_time([series("top", 1.0, (16, 0.1))], 7.0)
    assert not is_short_of_time([series("top", 1.0, (16, 0.1))], 9.0)
    assert not is_short_of_time([series("top", 1.0, end="no gain over the head")], 7.0)
    assert chosen(1000.0, series("top", 1.0, (16, 0.1), end="no further gain")) is None
    assert chosen(1000.0, series("top", 1.0, end="no gain over the head")) is None
    assert chosen(1000.0) is None


def test_no_loss_below_zero_is_expected() -> None:
    assert series("top", 1.0, (16, 0.9)).expected(10_000, HEAD_LOSS) == pytest.approx(0.95)


def trial(
    rate: float, first: int, steps: int, gain: float | None, gained: bool, part: str = "top"
) -> Trial:
    compared = None if gain is None else PairedLosses(100, -gain, 0.01)
    scale = 0 if first else steps // 16
    return Trial(part, rate, scale, first, steps, 1.0, 2.0, 0.1, 0.2, gained, compared, [])


def test_a_series_is_the_best_first_training_and_what_continued_it() -> None:
    trials = [
        trial(4e-5, 0, 16, 0.005, False),
        trial(2e-4, 0, 16, 0.2, True),
        trial(1e-3, 0, 16, None, False),
        trial(2e-4, 16, 48, 0.3, True),
        trial(2e-4, 64, 192, 0.2, False),
        trial(4e-5, 64, 192, 0.4, True),
    ]
    found = series_of("top", trials)
    assert found is not None and not found.end
    assert found.points == [(16, 0.2), (64, 0.3), (256, 0.4)]
    assert found.learning_rate == 4e-5
    assert trainings_of(found, trials) == [trials[1], trials[3], trials[5]]
    ended = series_of("top", [*trials, trial(4e-5, 256, 768, 0.4, False)])
    assert ended is not None and ended.end == "no further gain"
    assert series_of("full", trials) is None
    assert series_of("top", trials[:1]).end == "no gain over the head"


def test_a_training_without_a_gain_is_followed_by_other_views_and_then_by_lower_rates() -> None:
    views = ["", "light views with flips", "light views"]
    trials = [trial(2e-4, 0, 16, 0.2, True), trial(2e-4, 16, 48, 0.1, False)]

    def next_way() -> tuple[float, str, str]:
        found = series_of("top", trials, views)
        assert found is not None
        return found.learning_rate, found.views, found.end

    assert next_way() == (2e-4, "light views with flips", "")
    trials.append(replace(trial(2e-4, 16, 48, 0.1, False), views="light views with flips"))
    assert next_way() == (2e-4, "light views", "")
    trials.append(replace(trial(2e-4, 16, 48, 0.1, False), views="light views"))
    assert next_way() == (4e-5, "", "")
    trials[-1] = replace(trial(2e-4, 16, 48, 0.3, True), views="light views")
    assert next_way() == (2e-4, "light views", "")
    trials.append(replace(trial(2e-4, 64, 192, 0.2, False), views="light views"))
    assert next_way() == (2e-4, "", "")
    assert trials[-1].row().startswith("top on light views | 2e-04 | 64+192 | ")


def test_a_part_starts_with_the_best_rate_of_those_before_and_a_lower_one() -> None:
    trials = [trial(4e-5, 0, 16, 0.02, True), trial(1e-3, 0, 16, 0.01, True)]
    assert first_rates(trials, []) == list(LEARNING_RATES)
    assert first_rates(trials, ["top"]) == [4e-5, 2e-4]
    assert first_rates([*trials, trial(2e-4, 0, 16, 0.03, True)], ["top"]) == [2e-4, 4e-5]
    assert first_rates([trial(2e-4, 0, 16, 0.03, False)], ["top"]) == list(LEARNING_RATES)
    assert first_rates([trial(5e-3, 0, 16, 0.03, True)], ["top"]) == [5e-3]


def test_without_a_gain_longer_trainings_have_the_rates_that_were_not_far_worse() -> None:
    trials = [
        trial(4e-5, 0, 16, -0.001, False),
        trial(2e-4, 0, 16, 0.005, False),
        trial(1e-3, 0, 16, -0.03, False),
        trial(1e-3, 0, 16, None, False, "full"),
    ]
    assert later_rates(trials, "top", GROWTH) == [4e-5, 2e-4]
    assert later_rates(trials, "full", GROWTH) == []
    assert later_rates(trials, "top", GROWTH**2) == []
    longer = [*trials, trial(2e-4, 0, GROWTH * 16, 0.1, True)]
    assert later_rates(longer, "top", GROWTH**2) == []


def test_a_trial_is_read_as_it_was_written() -> None:
    for one in (trial(1e-3, 16, 48, 0.1, True), trial(1e-3, 0, 16, None, False)):
        assert Trial.of_json(one.as_json()) == one
        assert one.row().startswith("top | 1e-03 | ")
