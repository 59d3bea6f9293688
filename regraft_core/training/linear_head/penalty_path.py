"""Where a fit on a path of penalties starts: near its solution, which the last two predict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from regraft_core.training.linear_head.linear_classifier import Weights


class Solution(NamedTuple):
    """The classifier with the lowest loss at a penalty."""

    penalty: float
    weights: Weights


def predict_solution(before: Sequence[Solution], penalty: float, prior: Weights) -> Weights:
    """Return about the solution at a penalty, to start from.

    It is on the line through the last two solutions, over the logarithm of the penalty: weights
    grow about evenly with it. A path of weaker and weaker penalties then takes far fewer steps
    than if each fit starts from the solution before.

    Args:
        before: solutions at other penalties, the last ones last.
        penalty: of the fit.
        prior: what to start from without solutions.
    """
    if len(before) < 2:
        return before[-1].weights if before else prior
    (first, older), (last, newer) = before[-2:]
    if first == last:
        return newer
    ratio = np.log(penalty / last) / np.log(last / first)
    return Weights(
        newer.kernel + ratio * (newer.kernel - older.kernel),
        newer.bias + ratio * (newer.bias - older.bias),
    )
