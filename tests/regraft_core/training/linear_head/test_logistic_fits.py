"""Logistic regressions of all rows, from penalty to penalty and from other rows' solutions."""

from __future__ import annotations

import numpy as np
import pytest

from regraft_core.training.linear_head.head_rows import HeadRows, scalings
from regraft_core.training.linear_head.logistic_fits import LogisticFits
from regraft_core.training.linear_head.logistic_regression import MULTINOMIAL

COUNT, WIDTH = 200, 12


@pytest.mark.parametrize("axes_of", [COUNT, 5])
def test_the_start_does_not_change_the_solution(axes_of: int) -> None:
    """On principal axes, and on the features if the sample's axes do not span all rows."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, COUNT).astype(np.int32)
    values = (rng.normal(size=(COUNT, WIDTH)) + np.eye(WIDTH)[labels]).astype(np.float32)
    rows = HeadRows([values], labels, np.arange(COUNT), values.mean(axis=0), values.var(axis=0),
                    [WIDTH])  # fmt: skip
    scaling = scalings(rows)["level"]
    given = (rows, np.eye(3)[labels], np.ones(COUNT), scaling, np.arange(axes_of), MULTINOMIAL)
    path = LogisticFits(*given)
    weak = path.fit(1e-4)
    strong = path.fit(1e-2)
    assert np.abs(weak.kernel).max() > 1.5 * np.abs(strong.kernel).max()
    for start in (None, weak):
        found = LogisticFits(*given, start).fit(1e-2)
        np.testing.assert_allclose(found.kernel, strong.kernel, atol=0.02)
        np.testing.assert_allclose(found.bias, strong.bias, atol=0.01)
