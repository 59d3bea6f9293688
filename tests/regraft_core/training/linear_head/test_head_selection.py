"""The selection of a head: folds, scalings, penalty, calibration, offset, and small classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from regraft_core.formats.options.train_head import HeadOptions
from regraft_core.training.linear_head import head_rows, head_selection
from regraft_core.training.linear_head.head_rows import HeadRows, deal_folds, scalings
from regraft_core.training.linear_head.head_selection import SolvedHead, solve_head
from regraft_core.training.linear_head.held_out_scores import (
    choose_offset,
    fit_temperature,
    log_loss,
    score,
)

OPTIONS = HeadOptions(folds=3)


def rows_of(
    features: NDArray[Any], labels: list[int] | NDArray[Any], widths: tuple[int, ...] = ()
) -> HeadRows:
    stored, known = features.astype(np.float32), np.asarray(labels, np.int32)
    images = np.arange(len(known))
    return HeadRows([stored], known, images, stored.mean(0), stored.var(0),
                    widths or (stored.shape[1],))  # fmt: skip


def blobs(per_class: int, width: int = 8, noise: float = 1.0, seed: int = 0) -> HeadRows:
    rng = np.random.default_rng(seed)
    labels = np.arange(3).repeat(per_class)
    return rows_of(np.eye(width)[labels] + rng.normal(0, noise, (3 * per_class, width)), labels)


def solve(rows: HeadRows, classes: int, weights: None, options: HeadOptions) -> SolvedHead:
    return solve_head({"gap": rows}, classes, weights, options)


def accuracy(head: SolvedHead, rows: HeadRows) -> float:
    logits = rows.parts[0] @ head.kernel + head.bias
    return float((logits.argmax(axis=1) == rows.labels).mean())


def test_folds_hold_views_of_an_image_together_and_each_class_evenly() -> None:
    labels = np.tile(np.repeat(np.arange(3, dtype=np.int32), [10, 10, 4]), 2)
    images = np.tile(np.arange(24), 2)
    folds = deal_folds(labels, images, 5, seed=1)
    np.testing.assert_array_equal(folds[:24], folds[24:])
    assert [np.bincount(folds[:24][labels[:24] == k], minlength=5).tolist() for k in (0, 1)] == [
        [2] * 5, [2] * 5]  # fmt: skip
    assert np.bincount(folds[:24]).max() - np.bincount(folds[:24]).min() <= 1
    np.testing.assert_array_equal(folds, deal_folds(labels, images, 5, seed=1))
    assert (folds != deal_folds(labels, images, 5, seed=2)).any()


def test_scalings_give_each_level_the_same_length() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(3, [1, 2, 100, 300, 0], (500, 5))
    found = scalings(rows_of(features, np.zeros(500), (2, 3)))
    for scaling in found.values():
        scaled = scaling.apply(features)
        squares = np.square(scaled).mean(axis=0)
        assert squares[:2].sum() == pytest.approx(0.5, rel=1e-3)
        assert squares[2:].sum() == pytest.approx(0.5, rel=1e-3)
        np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-4)
    assert found["level"].factor[0] == found["level"].factor[1]
    scaled = found["feature"].apply(features)
    assert scaled[:, 0].std() == pytest.approx(scaled[:, 1].std(), rel=0.01)


def test_the_chosen_penalty_is_better_than_the_weakest_on_other_images() -> None:
    train, test = (blobs(n, width=60, noise=0.6, seed=n) for n in (30, 300))
    losses = []
    for penalty in (0.0, 1e-7):
        head = solve(train, 3, None, OPTIONS.model_copy(update={"l2": penalty}))
        losses.append(log_loss(test.parts[0] @ head.kernel + head.bias, test.labels))
    assert losses[0] < losses[1] - 0.02


def test_classes_that_are_never_confused_have_finite_confidence() -> None:
    head = solve(blobs(30, noise=0.05), 3, None, OPTIONS)
    assert head.held_out["accuracy"] == 1.0
    assert np.abs(head.kernel).max() < 100


def test_the_head_is_calibrated_out_of_fold() -> None:
    """A strong penalty alone would make it far too uncertain."""
    train, test = blobs(150), blobs(400, seed=1)
    head = solve(train, 3, None, OPTIONS.model_copy(update={"l2": 1.0}))
    assert head.members[0].temperature < 0.5
    logits = test.parts[0] @ head.kernel + head.bias
    assert fit_temperature(logits, test.labels) == pytest.approx(1.0, abs=0.25)
    assert log_loss(logits, test.labels) == pytest.approx(head.loss, abs=0.15)


def test_a_given_penalty_is_kept() -> None:
    head = solve(blobs(20), 3, None, OPTIONS.model_copy(update={"l2": 0.05}))
    assert [(one.method, one.penalty) for one in head.members] == [("logistic", 0.05)]


def test_rows_beyond_the_sample_are_fitted_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fit of all rows is the same in memory, in blocks, and on features without axes."""
    rows, fixed = blobs(100), OPTIONS.model_copy(update={"l2": 1e-2})
    whole = solve(rows, 3, None, fixed)
    for module, name, value in (
        (head_selection, "SELECTION_ROWS", 90),
        (head_rows, "IN_MEMORY_BYTES", 0),
        (head_selection, "SELECTION_ROWS", 6),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, value)
            head = solve(rows, 3, None, fixed)
        one, other = ((rows.parts[0] @ h.kernel).argmax(1) for h in (whole, head))
        assert (one == other).mean() > 0.97, (name, value)


@pytest.mark.parametrize("objective", ["balanced-accuracy", "macro-f1"])
def test_an_offset_favors_rare_classes_as_far_as_it_serves_the_objective(objective: Any) -> None:
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat([0, 1], [900, 100])).astype(np.int32)
    values = rng.normal(1.5 * labels)
    logits = np.stack([np.zeros(1000), 1.5 * values - 1.125 + np.log(1 / 9)], axis=1)
    offset = choose_offset(objective, logits, labels, np.array([0.9, 0.1]))
    assert offset[1] > 0 > offset[0]
    before, after = (score(objective, x.argmax(1), labels) for x in (logits, logits + offset))
    assert after > before + 0.02
    assert not choose_offset("accuracy", logits, labels, np.array([0.9, 0.1])).any()


def test_scores_by_hand() -> None:
    labels, predicted = np.array([0, 0, 0, 1], np.int32), np.array([0, 0, 1, 1])
    assert score("accuracy", predicted, labels) == 0.75
    assert score("balanced-accuracy", predicted, labels) == pytest.approx((2 / 3 + 1) / 2)
    assert score("macro-f1", predicted, labels) == pytest.approx((4 / 5 + 2 / 3) / 2)


def test_labels_and_folds_that_leave_little_to_learn_from() -> None:
    """Classes of one image, or of none, an image alone, equal features: a head, and no error."""
    rng = np.random.default_rng(0)
    cases = {
        "a class of one, one of none": rows_of(rng.normal(size=(7, 4)), [0, 0, 0, 1, 1, 1, 2]),
        "one image a class": rows_of(rng.normal(size=(3, 4)), [0, 1, 2]),
        "one image": rows_of(rng.normal(size=(1, 4)), [1]),
        "one class": rows_of(rng.normal(size=(6, 4)), [1] * 6),
        "equal features": rows_of(np.ones((6, 4)), [0, 0, 0, 1, 1, 2]),
    }
    for name, rows in cases.items():
        head = solve(rows, 4, None, OPTIONS)
        assert np.isfinite(head.kernel).all(), name
        assert np.isfinite(head.bias).all(), name
        assert bool(head.trials) == (np.bincount(rows.labels).max() > 1), name
    assert accuracy(solve(cases["one image a class"], 4, None, OPTIONS),
                    cases["one image a class"]) == 1.0  # fmt: skip


def test_the_head_is_the_mean_of_fits_that_is_best_together() -> None:
    head = solve(blobs(40, width=30, noise=0.8), 3, None, OPTIONS)
    assert {one.method for one in head.trials} == {"ridge", "discriminant", "logistic"}
    assert head.loss <= min(one.loss for one in head.members) + 1e-9
    assert {one.levels for one in head.members} == {head.levels}


def test_levels_that_separate_the_classes_are_chosen() -> None:
    rows, noise = blobs(30, noise=0.3), blobs(30, noise=3.0)
    head = solve_head({"poor": noise, "good": rows}, 3, None, OPTIONS)
    assert head.levels == "good"


def test_class_weights_favor_the_class_that_weighs_more() -> None:
    rows = blobs(40, noise=1.5)
    plain, weighted = (solve_head({"gap": rows}, 3, w, OPTIONS) for w in (None, [8.0, 1.0, 1.0]))
    counts = [np.sum((rows.parts[0] @ h.kernel + h.bias).argmax(1) == 0) for h in (plain, weighted)]
    assert counts[1] > counts[0]
