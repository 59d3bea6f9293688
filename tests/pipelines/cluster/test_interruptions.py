"""The expected time with interruptions: limits, a simulation, and the chance of many."""

from __future__ import annotations

import math
import random

import pytest

from pipelines.cluster.interruptions import Interruptions


def test_without_interruptions_the_time_is_that_of_the_work() -> None:
    assert Interruptions().expected_s(1000) == 1000
    assert Interruptions(per_hour=1, restart_s=60).expected_s(0) == 0


def test_few_interruptions_cost_half_a_segment_and_a_restart_each() -> None:
    found = Interruptions(per_hour=0.01, restart_s=60, checkpoint_s=300).expected_s(36_000)
    assert found - 36_000 == pytest.approx(0.1 * (150 + 60), rel=0.01)


def test_a_smaller_segment_loses_less() -> None:
    often = Interruptions(per_hour=5, checkpoint_s=600)
    assert often.expected_s(3600, segment_s=60) < often.expected_s(3600)
    assert often.expected_s(3600, segment_s=1e9) == often.expected_s(3600)


def test_the_formula_is_the_mean_of_simulated_steps() -> None:
    often = Interruptions(per_hour=6, restart_s=50, checkpoint_s=200)
    chance = random.Random(0)

    def simulated() -> float:
        now, mean_s = 0.0, 3600 / often.per_hour
        for _ in range(5):  # segments of 200 s
            left = 200.0
            while (until := chance.expovariate(1 / mean_s)) < left:
                now, left = now + until, 200.0 + often.restart_s
            now += left
        return now

    mean = sum(simulated() for _ in range(20_000)) / 20_000
    assert often.expected_s(1000) == pytest.approx(mean, rel=0.01)


def test_a_step_that_never_ends_takes_forever() -> None:
    assert Interruptions(per_hour=3600, checkpoint_s=1e6).expected_s(1e6) == math.inf


def test_the_chance_of_more_interruptions_than_retries() -> None:
    often = Interruptions(per_hour=2)
    mean = 2 * 0.5
    none_or_one = math.exp(-mean) * (1 + mean)
    assert often.more_than(1, 1800) == pytest.approx(1 - none_or_one)
    assert Interruptions().more_than(0, 1e9) == 0
    assert often.more_than(2, 1e9) == 1
