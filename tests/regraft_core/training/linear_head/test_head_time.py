"""A head in a budget: what there is time for, and that it is solved whatever there is."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from regraft_core.formats.options.train_head import HeadOptions
from regraft_core.runtime.step_reports import Clock
from regraft_core.training.linear_head import head_selection
from regraft_core.training.linear_head.head_rows import HeadRows
from regraft_core.training.linear_head.head_selection import SolvedHead, solve_head
from regraft_core.training.linear_head.head_time import HEAD_FRACTION, SHORT_FRACTION, HeadTime
from regraft_core.training.linear_head.held_out_scores import fit_temperature, log_loss
from regraft_core.training.linear_head.training_sizes import measure_sizes

CLASSES, WIDTH, OPTIONS = 3, 40, HeadOptions(folds=3)
ENOUGH_S = 1e6


def blobs(count: int, seed: int) -> HeadRows:
    """Return rows whose classes overlap."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count).astype(np.int32)
    values = (2 * np.eye(WIDTH)[labels] + rng.normal(0, 1, (count, WIDTH))).astype(np.float32)
    return HeadRows([values[:70], values[70:]], labels, np.arange(count), values.mean(axis=0),
                    values.var(axis=0), [WIDTH])  # fmt: skip


def logits(head: SolvedHead, rows: HeadRows) -> NDArray[np.float64]:
    return np.concatenate(rows.parts) @ head.kernel + head.bias


@pytest.fixture(autouse=True)
def small_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_selection, "SCREENING_ROWS", 75)
    monkeypatch.setattr(head_selection, "SELECTION_ROWS", 150)


def test_the_limit_is_a_fraction_of_what_extraction_left() -> None:
    time = HeadTime.of_budget("10m", 100.0, Clock())
    assert time is not None and time.limit_s == pytest.approx(HEAD_FRACTION * 500.0)
    assert HeadTime.of_budget("", 100.0, Clock()) is None
    used = HeadTime.of_budget("1m", 100.0, Clock())
    assert used is not None and used.limit_s == 0.0


def test_a_fit_is_skipped_if_it_would_take_longer_than_the_time() -> None:
    time = HeadTime(100.0, Clock())
    assert time.allows(10**9, "any fit"), "the speed is not known yet"
    time.measure(1000, 10.0)
    assert time.allows(7000, "a fit")
    assert not time.allows(9000, "a long fit")
    assert time.skipped == ["a long fit"]
    assert time.sentence().endswith("Skipped: a long fit.")
    over = HeadTime(100.0, Clock(), row_s=0.01)
    over.clock._start -= 200.0
    assert over.left_s < 0 and over.affordable_rows() == int(SHORT_FRACTION * 100.0 / 0.0125)


def test_with_enough_time_the_head_is_the_same() -> None:
    rows, time = blobs(500, seed=0), HeadTime(ENOUGH_S, Clock())
    head, timed = (solve_head({"gap": rows}, CLASSES, None, OPTIONS, one) for one in (None, time))
    np.testing.assert_allclose(logits(timed, rows), logits(head, rows), atol=1e-3)
    assert time.skipped == [] and time.row_s > 0
    assert time.rows == len(rows)


def test_of_many_rows_all_are_fitted_but_those_that_penalties_are_compared_on() -> None:
    rows, others, time = blobs(1500, seed=0), blobs(2000, seed=1), HeadTime(ENOUGH_S, Clock())
    head = solve_head({"gap": rows}, CLASSES, None, OPTIONS, time)
    assert head.grown is not None and head.grown.rows == 600 - 600 // 5, "of the comparison"
    assert (time.rows, time.skipped) == (1500 - 600 // 5, [])
    assert fit_temperature(logits(head, others), others.labels) == pytest.approx(1.0, abs=0.2)


def test_without_time_a_head_of_few_rows_is_solved_and_calibrated() -> None:
    rows, others, time = blobs(1500, seed=0), blobs(2000, seed=1), HeadTime(0.0, Clock())
    head = solve_head({"gap": rows}, CLASSES, None, OPTIONS, time)
    assert head.grown is not None and head.grown.rows == 300 - 300 // 5
    assert head.rows == 75
    assert time.skipped == [
        "comparisons on more than 75 rows", "the fit of more than 240 of 1500 rows",
    ]  # fmt: skip
    found = logits(head, others)
    assert log_loss(found, others.labels) < 0.75 * np.log(CLASSES)
    assert fit_temperature(found, others.labels) == pytest.approx(1.0, abs=0.3)
    assert measure_sizes(head, rows, others.parts, others.labels, None, OPTIONS, time) is None
    assert time.skipped[-1] == "the curve by the number of images"
