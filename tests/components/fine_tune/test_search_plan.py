"""Which training of a search goes on: by its expected gain per second, without a model."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from components.fine_tune.search.plan import GROWTH, Series, choose_next, is_short_of_time
from components.fine_tune.search.trials import Trial, series_of, trainings_of
from regraft_core.training.paired_losses import PairedLosses

HEAD_LOSS = 1.0


def series(
    part: str, step_s: float, *points: tuple[int, float], end: str = "", first: int | None = None
) -> Series:
    steps = points[-1][0] if points and first is None else first or 0
    return Series(part, 2e-4, step_s, 0.0, list(points), end, first=steps)


def chosen(left_s: float, *found: Series) -> tuple[str, int] | None:
    following = choose_next(found, left_s, HEAD_LOSS)
    return following and (following.series.part, following.steps)


def test_each_part_has_a_second_result_before_they_are_compared() -> None:
    fast, slow = series("top", 1.0, (16, 0.1)), series("full", 3.0, (16, -0.1), first=0)
    assert chosen(1000.0, fast, slow) == ("top", GROWTH * 16)
    fast = series("top", 1.0, (16, 0.1), (64, 0.15))
    assert chosen(1000.0, fast, slow) == ("full", GROWTH * 16)
    # They would take too much of the time.
    assert chosen(200.0, fast, slow) == ("top", 200)


def test_the_part_with_the_highest_gain_at_the_end_of_the_time_goes_on() -> None:
    """From 64 to 256 steps, the slow part gains more, but it is behind."""
    fast = series("top", 1.0, (64, 0.10), (256, 0.12))
    slow = series("full", 4.0, (64, 0.0), (256, 0.06))
    assert chosen(40_000.0, fast, slow) == ("full", GROWTH * 256)
    assert chosen(1_500.0, fast, slow) == ("top", 1_500)


def test_a_part_that_has_not_gained_starts_again_from_the_head_if_it_will_pass() -> None:
    fast = series("top", 1.0, (64, 0.1), (256, 0.1))
    behind = series("full", 3.0, (16, -0.04), (48, -0.01), first=0)
    assert behind.expected(48 * 9, HEAD_LOSS) == pytest.approx(0.05)
    assert chosen(50_000.0, fast, behind) == ("full", GROWTH * 48)
    assert chosen(1000.0, fast, behind) is None
    worse = series("full", 3.0, (16, -0.01), (48, -0.04), first=0)
    assert chosen(50_000.0, fast, worse) is None


def test_the_last_training_takes_all_time_if_another_would_be_shorter() -> None:
    assert chosen(16 * 2 * GROWTH, series("top", 1.0, (16, 0.1))) == ("top", 16 * 2 * GROWTH)
    assert chosen(16 * 20, series("top", 1.0, (16, 0.1))) == ("top", 16 * GROWTH)


def test_a_training_from_the_head_has_at_most_the_epochs_of_the_options() -> None:
    again = series("full", 1.0, (16, -0.02), (48, -0.01), first=0)
    again.most_steps = 100
    assert again.most(1e6) == 100
    again.points.append((100, 0.0))
    assert again.most(1e6) == 0


def test_nothing_goes_on_without_time_or_gain() -> None:
    assert chosen(7.0, series("top", 1.0, (16, 0.1))) is None
    assert is_short_of_time([series("top", 1.0, (16, 0.1))], 7.0)
    assert not is_short_of_time([series("top", 1.0, (16, 0.1))], 9.0)
    assert not is_short_of_time([series("top", 1.0, end="no gain over the head")], 7.0)
    assert chosen(1000.0, series("top", 1.0, (16, 0.1), end="no further gain")) is None
    assert chosen(1000.0, series("top", 1.0, end="no gain over the head")) is None
    assert chosen(1000.0) is None


def test_an_expected_gain_that_is_hardly_one_ends_the_search() -> None:
    assert chosen(1e6, series("top", 1.0, (16, 1e-6), (64, 2e-6))) is None


def test_no_loss_below_zero_is_expected() -> None:
    assert series("top", 1.0, (16, 0.9)).expected(10_000, HEAD_LOSS) == pytest.approx(0.95)


def trial(
    rate: float, first: int, steps: int, gain: float | None, gained: bool, part: str = "top"
) -> Trial:
    compared = None if gain is None else PairedLosses(100, -gain, 0.01)
    return Trial(part, rate, first, steps, 1.0, 2.0, 0.1, 0.2, gained, compared, [])


def test_a_series_is_what_led_to_the_best_weights() -> None:
    trials = [
        trial(2e-4, 0, 16, 0.2, True),
        trial(1e-3, 0, 16, None, False),
        trial(2e-4, 16, 48, 0.3, True),
        trial(2e-4, 64, 192, 0.2, False),
        trial(4e-5, 64, 192, 0.4, True),
    ]
    found, other = series_of("top", trials, HEAD_LOSS)
    assert (other.learning_rate, other.end) == (1e-3, "diverged")
    assert not found.end and found.first == 256
    assert found.points == [(16, 0.2), (64, 0.3), (256, 0.4)]
    assert found.learning_rate == 4e-5
    assert trainings_of("top", trials) == [trials[0], trials[2], trials[4]]
    ended, _ = series_of("top", [*trials, trial(4e-5, 256, 768, 0.4, False)], HEAD_LOSS)
    assert ended.end == "no further gain"
    assert series_of("full", trials, HEAD_LOSS) == []


def test_each_rate_without_the_best_weights_is_a_series_from_the_head() -> None:
    trials = [
        trial(4e-5, 0, 16, -0.001, False),
        trial(2e-4, 0, 16, -0.2, False),
        trial(1e-3, 0, 16, -0.6, False),
    ]
    found = {one.learning_rate: one for one in series_of("top", trials, HEAD_LOSS)}
    assert [one.end for one in found.values()] == ["", "", "far worse than the head"]
    assert found[2e-4].points == [(16, -0.2)] and found[2e-4].first == 0
    trials += [trial(4e-5, 0, 48, 0.01, False), trial(2e-4, 0, 48, 0.1, True)]
    found = {one.learning_rate: one for one in series_of("top", trials, HEAD_LOSS)}
    assert found[2e-4].points == [(16, -0.2), (48, 0.1)] and found[2e-4].first == 48
    assert found[4e-5].end == "worse than a higher learning rate"
    assert trainings_of("top", trials) == trials[-1:]
    limited = series_of("top", trials[:1], HEAD_LOSS, most_steps=16)
    assert [one.end for one in limited] == ["no gain over the head"]


def test_better_weights_from_the_head_replace_those_that_were_continued() -> None:
    trials = [
        trial(4e-5, 0, 16, 0.1, True),
        trial(2e-4, 0, 16, 0.05, True),
        trial(4e-5, 16, 48, 0.12, True),
        trial(2e-4, 0, 48, 0.2, True),
    ]
    assert trainings_of("top", trials[:3]) == [trials[0], trials[2]]
    assert trainings_of("top", trials) == trials[3:]
    best, other = series_of("top", trials, HEAD_LOSS)
    assert (best.learning_rate, best.points, best.first) == (2e-4, [(16, 0.05), (48, 0.2)], 48)
    assert (other.learning_rate, other.points, other.first) == (4e-5, [(16, 0.1)], 0)


def test_a_training_without_a_gain_is_followed_by_other_views_and_then_by_lower_rates() -> None:
    views = ["", "light views with flips", "light views"]
    trials = [trial(2e-4, 0, 16, 0.2, True), trial(2e-4, 16, 48, 0.1, False)]

    def next_way() -> tuple[float, str, str]:
        (found,) = series_of("top", trials, HEAD_LOSS, views)
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


def test_a_trial_is_read_as_it_was_written() -> None:
    for one in (trial(1e-3, 16, 48, 0.1, True), trial(1e-3, 0, 16, None, False)):
        assert Trial.of_json(one.as_json()) == one
        assert one.row().startswith("top | 1e-03 | ")


def simulate(left_s: float) -> tuple[list[Trial], float]:
    """Search with gains that are linear in the logarithm of the steps, as measured for two parts.

    They are those of Fashion-MNIST with a head whose loss is 0.2: the last blocks gain at once,
    and all layers are worse than the head for some hundred steps.
    """
    curves = {"top": (0.06, -0.028, 0.006), "full": (0.25, -0.15, 0.026)}
    trials = [
        at(curves, part, 2e-4, 0, steps) for part, steps in (("top", 200), ("full", 60))
    ]  # fmt: skip
    while True:
        found = [one for part in curves for one in series_of(part, trials, 0.2)]
        following = choose_next(found, left_s, 0.2)
        if following is None:
            return trials, left_s
        series = following.series
        trials.append(
            at(curves, series.part, series.learning_rate, series.first, following.steps, trials)
        )
        left_s -= trials[-1].seconds


def at(
    curves: dict[str, tuple[float, float, float]], part: str, rate: float, first: int, steps: int,
    trials: list[Trial] | None = None,
) -> Trial:  # fmt: skip
    step_s, start, slope = curves[part]
    gain = start + slope * math.log(first + steps)
    before = trainings_of(part, trials or [])
    gained = gain > (before[-1].gain if first else 0.0)
    compared = PairedLosses(2000, -gain, 0.001)
    seconds = steps * step_s
    return Trial(part, rate, first, steps, 1.0, seconds, step_s, 0.0, gained, compared, [])


def test_with_more_time_more_layers_are_trained() -> None:
    little, left_s = simulate(60.0)
    assert max(little, key=lambda one: one.gain).part == "top" and left_s < 10.0
    much, left_s = simulate(1400.0)
    assert max(much, key=lambda one: one.gain).part == "full" and left_s < 50.0
    assert [one.steps for one in much if one.part == "full"][:2] == [60, GROWTH * 60]
    seconds = sum(one.seconds for one in much if one.part == "full")
    assert seconds > 0.8 * 1400.0
