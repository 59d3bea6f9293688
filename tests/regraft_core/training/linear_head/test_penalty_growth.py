"""Penalties of many rows: stronger ones are found, and what the options give is kept."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from regraft_core.formats.options.train_head import HeadOptions
from regraft_core.training.linear_head import head_selection
from regraft_core.training.linear_head.chosen_fits import MemberFits
from regraft_core.training.linear_head.head_rows import HeadRows
from regraft_core.training.linear_head.head_selection import fit_again, solve_head
from regraft_core.training.linear_head.held_out_fits import Method, Trial, make_task
from regraft_core.training.linear_head.held_out_scores import fit_temperature, log_loss
from regraft_core.training.linear_head.penalty_growth import grow_penalties

COMPARED, CLASSES, OPTIONS = 100, 3, HeadOptions(folds=3)


def blobs(count: int, seed: int, width: int = 40) -> HeadRows:
    """Return rows whose classes overlap, so that weak penalties fit noise."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count).astype(np.int32)
    values = (2 * np.eye(width)[labels] + rng.normal(0, 1, (count, width))).astype(np.float32)
    return HeadRows([values[:70], values[70:]], labels, np.arange(count), values.mean(axis=0),
                    values.var(axis=0), [width])  # fmt: skip


def trial(method: Method, penalty: float) -> Trial:
    return Trial("gap", "level", method, penalty, 0.0, 0.0, 1.0, COMPARED, 0.0, 0.0)


def grow(rows: HeadRows, *members: Trial, options: HeadOptions = OPTIONS) -> float:
    return grow_penalties(rows, CLASSES, None, options, members, COMPARED).factor


@pytest.mark.parametrize("method", ["discriminant", "logistic"])
def test_weak_penalties_grow_and_strong_ones_stay(method: Method) -> None:
    rows = blobs(480, seed=0)
    assert grow(rows, trial(method, 1e-3)) == 10.0
    assert grow(rows, trial(method, 10.0)) == 1.0
    given = OPTIONS.model_copy(update={"l2": 1e-3})
    assert grow(rows, trial(method, 1e-3), options=given) == 1.0


def test_grown_penalties_are_better_on_other_rows() -> None:
    rows, others = blobs(240, seed=0), blobs(2000, seed=1)
    task = make_task(rows, CLASSES, None, OPTIONS, COMPARED)
    members = [trial("discriminant", 3e-3), trial("logistic", 1e-3)]
    grown = grow_penalties(rows, CLASSES, None, OPTIONS, members, COMPARED)
    fits = MemberFits(rows, task)
    before, after = (lowest_loss(fits.mean(one, COMPARED).logits(features(others)), others.labels)
                     for one in (members, grown.members))  # fmt: skip
    assert after < before - 0.005


def test_the_head_of_many_rows_is_calibrated(monkeypatch: pytest.MonkeyPatch) -> None:
    """The temperature of fits of the sample would not suit it."""
    monkeypatch.setattr(head_selection, "SELECTION_ROWS", 150)
    rows, others = blobs(1200, seed=0), blobs(2000, seed=1)
    head = solve_head({"gap": rows}, CLASSES, None, OPTIONS)
    assert head.grown is not None
    logits = features(others) @ head.kernel + head.bias
    assert fit_temperature(logits, others.labels) == pytest.approx(1.0, abs=0.2)
    again = fit_again(head, rows, None, OPTIONS).logits(features(others))
    np.testing.assert_allclose(again, logits, atol=0.05)


def test_all_rows_that_were_compared_need_no_other_penalty() -> None:
    head = solve_head({"gap": blobs(90, seed=0)}, CLASSES, None, OPTIONS)
    assert head.grown is None
    assert {one.penalty for one in head.members} <= {one.penalty for one in head.trials}


def features(rows: HeadRows) -> NDArray[np.float32]:
    return np.concatenate(rows.parts)


def lowest_loss(logits: NDArray[np.float64], labels: NDArray[np.int32]) -> float:
    return log_loss(logits / fit_temperature(logits, labels), labels)
