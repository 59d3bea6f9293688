"""The energy score, its threshold and the images to measure it on."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from components.evaluate.metrics.ood_images import MAX_IMAGES, read_ood_images
from components.evaluate.metrics.ood_score import energy_scores, find_threshold, fit_ood_threshold
from regraft_core.runtime.errors import DataError, InputError


def test_the_score_is_the_negative_energy() -> None:
    logits = np.array([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]])
    by_hand = [math.log(sum(math.exp(v) for v in row)) for row in logits.tolist()]
    np.testing.assert_allclose(energy_scores(logits), by_hand)


@pytest.mark.parametrize("fraction", [0.5, 0.9, 0.95, 0.99])
@pytest.mark.parametrize("images", [1, 2, 19, 20, 21, 1000])
def test_the_threshold_keeps_at_least_the_share_and_hardly_more(fraction, images) -> None:
    scores = np.random.default_rng(images).normal(size=images)
    kept = np.mean(scores >= find_threshold(scores, fraction))
    assert fraction - 1e-9 <= kept < fraction + 1 / images + 1e-9


def test_the_threshold_keeps_all_of_equal_scores() -> None:
    assert find_threshold(np.ones(10), 0.9) == 1.0


def confident(rng, images, height):
    logits = rng.normal(0, 1, (images, 4))
    logits[np.arange(images), rng.integers(0, 4, images)] += height
    return logits


def test_ood_images_are_detected() -> None:
    rng = np.random.default_rng(3)
    validation, test = confident(rng, 400, 8), confident(rng, 400, 8)
    ood = confident(rng, 200, 2)
    result = fit_ood_threshold(validation, test, ood, 0.95)
    assert result is not None
    assert result.validation_fraction == pytest.approx(0.95)
    assert result.test_fraction == pytest.approx(0.95, abs=0.04)
    in_distribution = np.r_[np.ones(400), np.zeros(200)]
    scores = np.r_[energy_scores(test), energy_scores(ood)]
    assert result.auroc == roc_auc_score(in_distribution, scores) and result.auroc > 0.98
    assert result.rejected_fraction is not None and result.rejected_fraction > 0.9
    assert result.ood_images == 200


def test_without_ood_images_there_is_only_a_threshold() -> None:
    logits = confident(np.random.default_rng(0), 40, 5)
    result = fit_ood_threshold(logits, logits, None, 0.9)
    assert result is not None and result.auroc is None and result.rejected_fraction is None


def test_without_validation_images_there_is_no_threshold() -> None:
    assert fit_ood_threshold(np.empty((0, 4)), np.zeros((3, 4)), None, 0.95) is None


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
