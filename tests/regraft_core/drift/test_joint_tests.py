"""The correction for several tests, and their combination, on p-values of permutations."""

from __future__ import annotations

import numpy as np
import pytest

from regraft_core.drift.joint_tests import combined_test, correct
from regraft_core.drift.permutations import Found, p_values


def found_with(*statistics: np.ndarray) -> list[Found]:
    return [Found(float(one[0]), p_values(one)) for one in statistics]


def holm(p: np.ndarray) -> np.ndarray:
    order = np.argsort(p)
    corrected = np.empty(len(p))
    corrected[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    return corrected


def test_p_values_of_permutations_count_those_that_reach_a_statistic() -> None:
    assert p_values(np.array([3.0, 1.0, 3.0, 2.0])).tolist() == [0.5, 1.0, 0.5, 0.75]
    assert p_values(np.array([1.0, 1.0 + 1e-9])).tolist() == [1.0, 1.0]
    assert p_values(np.zeros(3)).tolist() == [1.0] * 3


def test_equal_tests_need_no_correction_and_independent_ones_that_of_their_number() -> None:
    rng = np.random.default_rng(0)
    one = rng.normal(size=2000)
    one[0] = np.sort(one)[-20]  # a p-value of 0.01
    assert correct(found_with(one, one, one)) == pytest.approx([0.0105] * 3, abs=0.001)
    others = rng.normal(size=(2, 2000))
    others[:, 0] = 0
    first, *_ = correct(found_with(one, *others))
    assert first == pytest.approx(1 - (1 - 0.01) ** 3, abs=0.005)


@pytest.mark.parametrize("seed", range(5))
def test_the_correction_is_between_none_and_that_of_holm(seed: int) -> None:
    rng = np.random.default_rng(seed)
    found = found_with(*(rng.normal(size=(4, 300)) + rng.normal(size=300)))
    before = np.array([one.p_values[0] for one in found])
    corrected = np.array(correct(found))
    assert (corrected >= before).all() and (corrected <= holm(before) + 1e-9).all()
    assert (np.diff(corrected[np.argsort(before)]) >= 0).all()


def test_several_small_changes_are_found_together() -> None:
    statistics = np.random.default_rng(1).normal(size=(4, 1000))
    statistics[:, 0] = 1.9  # each has a p-value of about 0.03
    single = found_with(*statistics)
    assert min(correct(single)) > 0.05
    combined = combined_test(single)
    assert combined.p_values[0] < 0.005
    assert combined.statistic == pytest.approx(-2 * sum(np.log(one.p_values[0]) for one in single))
    assert correct([*single, combined])[-1] < 0.02
