"""The threshold of the OOD score, and the images to measure it on."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from components.evaluate.metrics.ood_images import MAX_IMAGES, read_ood_images
from components.evaluate.metrics.ood_score import OodScores, find_threshold, fit_ood_threshold
from regraft_core.runtime.errors import DataError, InputError


@pytest.mark.parametrize("fraction", [0.5, 0.9, 0.95, 0.99])
@pytest.mark.parametrize("images", [1, 2, 19, 20, 21, 1000])
def test_the_threshold_keeps_at_least_the_share_and_hardly_more(fraction, images) -> None:
    scores = np.random.default_rng(images).normal(size=images)
    kept = np.mean(scores >= find_threshold(scores, fraction))
    assert fraction - 1e-9 <= kept < fraction + 1 / images + 1e-9


def test_the_threshold_keeps_all_of_equal_scores() -> None:
    assert find_threshold(np.ones(10), 0.9) == 1.0


def test_ood_images_are_detected() -> None:
    rng = np.random.default_rng(3)
    scores = OodScores(rng.normal(0, 1, 400), rng.normal(0, 1, 400), rng.normal(-4, 1, 200))
    result = fit_ood_threshold(scores, 0.95)
    assert result is not None
    assert result.validation_fraction == pytest.approx(0.95)
    assert result.test_fraction == pytest.approx(0.95, abs=0.04)
    in_distribution = np.r_[np.ones(400), np.zeros(200)]
    expected = roc_auc_score(in_distribution, np.r_[scores.test, scores.ood])
    assert result.auroc == expected and result.auroc > 0.98
    assert result.rejected_fraction == np.mean(scores.ood < result.threshold) > 0.9
    assert result.ood_images == 200


def test_without_ood_images_there_is_only_a_threshold() -> None:
    values = np.random.default_rng(0).normal(size=40)
    result = fit_ood_threshold(OodScores(values, values), 0.9)
    assert result is not None and result.auroc is None and result.rejected_fraction is None


def test_without_validation_images_there_is_no_threshold() -> None:
    assert fit_ood_threshold(OodScores(np.empty(0), np.zeros(3)), 0.95) is None


def test_scores_that_are_not_finite_are_excluded() -> None:
    known = np.array([1.0, 2.0, 3.0])
    result = fit_ood_threshold(OodScores(np.r_[known, np.nan], np.r_[known, np.nan], -known), 0.5)
    assert result is not None
    assert (result.threshold, result.test_fraction, result.auroc) == (2.0, 2 / 3, 1.0)


def test_images_are_read_from_a_folder_at_any_depth_in_order(tmp_path) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("b.png", "a.JPG", "deep/c.webp", "notes.txt"):
        (tmp_path / name).write_bytes(name.encode())
    assert read_ood_images(str(tmp_path)) == [b"a.JPG", b"b.png", b"deep/c.webp"]


def test_a_large_folder_is_sampled_evenly(tmp_path) -> None:
    for k in range(MAX_IMAGES + 1000):
        (tmp_path / f"{k:05}.png").write_bytes(b"%d" % k)
    result = read_ood_images(str(tmp_path))
    assert len(result) == MAX_IMAGES and len(set(result)) == MAX_IMAGES
    assert result[-1] > b"2990"


def test_a_source_without_images_is_an_error(tmp_path) -> None:
    with pytest.raises(DataError, match="expected images"):
        read_ood_images(str(tmp_path))
    with pytest.raises(InputError, match="expected a folder"):
        read_ood_images(str(tmp_path / "none"))
