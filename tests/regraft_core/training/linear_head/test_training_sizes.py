"""The chosen head on parts of the training images, and what it shows about more images."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

import regraft_core.training.linear_head.training_sizes as module
from regraft_core.formats.options.train_head import HeadOptions
from regraft_core.training.linear_head.head_rows import HeadRows
from regraft_core.training.linear_head.head_selection import solve_head
from regraft_core.training.linear_head.training_sizes import (
    SizeCurve,
    TrainingSize,
    measure_sizes,
    take_part,
)

OPTIONS = HeadOptions(folds=3)


def blobs(per_class: int, width: int, noise: float, seed: int) -> HeadRows:
    rng = np.random.default_rng(seed)
    labels = np.arange(3, dtype=np.int32).repeat(per_class)
    rows = (np.eye(width)[labels] + rng.normal(0, noise, (len(labels), width))).astype(np.float32)
    images = np.arange(len(labels))
    return HeadRows([rows], labels, images, rows.mean(0), rows.var(0), (width,))


def curve_of(rows: HeadRows, held_out: HeadRows) -> SizeCurve:
    solved = solve_head({"gap": rows}, 3, None, OPTIONS)
    parts: list[NDArray[np.floating]] = list(held_out.parts)
    found = measure_sizes(solved, rows, parts, held_out.labels, None, OPTIONS)
    assert found is not None
    return found


def test_parts_are_nested_and_have_the_fractions_of_each_class() -> None:
    rows = blobs(40, 4, 1.0, 0)
    views = HeadRows(
        [*rows.parts, *rows.parts], np.tile(rows.labels, 2), np.tile(rows.images, 2),
        rows.mean, rows.variance, rows.widths,
    )  # fmt: skip
    parts = [take_part(views, fraction, seed=1) for fraction in (0.25, 0.5, 0.75)]
    for part, count in zip(parts, (10, 20, 30), strict=True):
        # Both views of an image are in a part, or none.
        assert np.bincount(part.labels).tolist() == [2 * count] * 3
        assert np.bincount(part.images).max() == 2 and len(part.parts[0]) == len(part)
        np.testing.assert_allclose(part.variance, part.parts[0].var(axis=0), rtol=1e-5)
    assert set(parts[0].images) < set(parts[1].images) < set(parts[2].images)
    rare = blobs(1, 4, 1.0, 0)
    assert sorted(take_part(rare, 0.25, seed=1).labels) == [0, 1, 2]


def test_more_images_help_where_features_are_many_and_noisy() -> None:
    curve = curve_of(blobs(60, 100, 0.5, 0), blobs(400, 100, 0.5, 1))
    assert [size.images for size in curve.sizes] == [45, 90, 135, 180]
    accuracies = [size.accuracy for size in curve.sizes]
    assert accuracies[0] < accuracies[-1] and curve.gain == pytest.approx(
        accuracies[-1] - accuracies[1]
    )
    assert all(size.accuracy_low < size.accuracy < size.accuracy_high for size in curve.sizes)
    assert curve.sentence().startswith("More images would probably help: from 90 to 180 training")


def test_more_images_help_little_where_few_suffice() -> None:
    curve = curve_of(blobs(60, 4, 0.1, 0), blobs(400, 4, 0.1, 1))
    assert curve.sizes[0].accuracy == 1.0
    assert curve.sentence().startswith("More images would help little:")


def test_few_validation_images_leave_the_question_open() -> None:
    curve = curve_of(blobs(60, 4, 0.1, 0), blobs(5, 4, 0.1, 1))
    assert "not clear from 15 validation images" in curve.sentence()


def test_a_loss_by_more_images_is_stated() -> None:
    sizes = [TrainingSize(n, n, 0.9, 0.8, 1.0) for n in (25, 50, 75, 100)]
    sentence = SizeCurve(sizes, -0.03, -0.05, -0.01, 900).sentence()
    assert sentence == (
        "More images like these would probably not help: from 50 to 100 training images, the "
        "validation accuracy changed by -3.0 points (95% interval -5.0 to -1.0)."
    )


def test_too_many_values_are_not_fitted_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = blobs(20, 4, 0.5, 0)
    solved = solve_head({"gap": rows}, 3, None, OPTIONS)
    monkeypatch.setattr(module, "MAX_VALUES", 60 * 4 - 1)
    assert measure_sizes(solved, rows, rows.parts, rows.labels, None, OPTIONS) is None
    assert "no learning curve by the number of images, because 60 rows" in capsys.readouterr().out
