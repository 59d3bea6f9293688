"""The detector of out-of-distribution images: its distance, its file, and when there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from regraft_core.runtime.errors import InputError
from regraft_core.training.ood_detector import (
    DETECTOR_FILE,
    MAX_AXES,
    OodDetector,
    average_maps,
    detector_sample,
    fit_ood_detector,
)

LAYERS = {"low": 12, "high": 20}
WIDTH = 32


def features(count: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Return features of three classes: some axes separate them, others vary in all of them."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int32) % 3
    axes = np.random.default_rng(9).normal(size=(6, WIDTH))
    places = np.concatenate([4 * np.eye(3)[labels], rng.normal(size=(count, 3))], axis=1)
    rows = places @ axes + 0.1 * rng.normal(size=(count, WIDTH))
    return (5 + rows).astype(np.float32), labels


def fit(count: int = 120) -> OodDetector:
    rows, labels = features(count, 0)
    found = fit_ood_detector(LAYERS, rows, labels, features(60, 1)[0])
    assert found is not None
    return found


def scores(detector: OodDetector, rows: NDArray[np.floating]) -> NDArray[np.float32]:
    rows = rows.astype(np.float32)
    result: NDArray[np.float32] = detector.scores([rows[:, :12], rows[:, 12:]]).numpy()
    return result


def test_the_score_is_the_distance_to_the_nearest_class_and_the_rest() -> None:
    detector, rows = fit(), features(10, 2)[0]
    scaled = (rows.astype(np.float64) - detector.shift) * detector.factor
    inside = scaled @ detector.basis
    nearest = np.square((inside @ detector.whitening)[:, None] - detector.means).sum(2).min(1)
    rest = np.square(scaled).sum(1) - np.square(inside).sum(1)
    expected = -(nearest / detector.spread[0] + rest / detector.spread[1]) / 2
    np.testing.assert_allclose(scores(detector, rows), expected, atol=1e-3)
    np.testing.assert_allclose(detector.basis.T @ detector.basis, np.eye(30), atol=1e-5)


def test_validation_images_have_a_score_of_minus_one_on_average() -> None:
    detector = fit()
    again = scores(detector, features(60, 1)[0])
    np.testing.assert_allclose(detector.validation_scores, again, rtol=1e-5)
    assert detector.validation_scores.mean() == pytest.approx(-1.0, rel=1e-3)


@pytest.mark.parametrize("kind", ["between classes", "far along a class", "off the axes"])
def test_other_features_have_lower_scores_than_those_of_the_classes(kind: str) -> None:
    detector = fit()
    rows, labels = features(60, 2)
    centers = np.stack([rows[labels == k].mean(0) for k in range(3)])
    noise = np.random.default_rng(3).normal(size=(60, WIDTH))
    others = {
        "between classes": rows - centers[labels] + centers.mean(0),
        # The logits of such an image are larger than those of the class.
        "far along a class": rows + 3 * (centers[labels] - centers.mean(0)),
        "off the axes": rows + noise,
    }
    threshold = np.quantile(detector.validation_scores, 0.05)
    assert (scores(detector, rows) >= threshold).mean() > 0.85
    assert (scores(detector, others[kind]) < threshold).all()


def test_the_file_has_all_of_it_and_is_checked(tmp_path: Path) -> None:
    detector = fit()
    digest = detector.write(tmp_path)
    read = OodDetector.read(tmp_path, digest)
    assert read is not None and read.layers == ("low", "high")
    rows = features(9, 4)[0]
    np.testing.assert_array_equal(scores(read, rows), scores(detector, rows))
    assert OodDetector.read(tmp_path, None) is None
    with pytest.raises(InputError, match="expected digest"):
        OodDetector.read(tmp_path, "0" * 64)
    (tmp_path / DETECTOR_FILE).unlink()
    with pytest.raises(InputError, match=r"expected ood_detector\.npz"):
        OodDetector.read(tmp_path, digest)


def test_more_classes_than_rows_suffice_for_have_one_mean() -> None:
    rows = features(60, 0)[0]
    found = fit_ood_detector(LAYERS, rows, np.arange(60), features(60, 1)[0])
    assert found is not None and len(found.means) == 1
    assert np.isfinite(found.validation_scores).all()


def test_without_enough_different_images_there_is_no_detector() -> None:
    rows, labels = features(60, 0)
    held_out = features(9, 1)[0]
    assert fit_ood_detector(LAYERS, rows[:3], labels[:3], held_out) is None
    assert fit_ood_detector(LAYERS, rows, labels, held_out[:0]) is None
    assert fit_ood_detector(LAYERS, np.ones_like(rows), labels, np.ones_like(held_out)) is None


def test_few_images_have_few_axes_and_many_at_most_64() -> None:
    assert fit(count=20).basis.shape == (WIDTH, 5)
    wide = {"wide": 100}
    rows = np.random.default_rng(0).normal(size=(400, 100)).astype(np.float32)
    found = fit_ood_detector(wide, rows, np.arange(400) % 4, rows[:50])
    assert found is not None and found.basis.shape == (100, MAX_AXES)


def test_rows_are_sampled_once_and_in_order() -> None:
    assert detector_sample(5, 10, 0).tolist() == [0, 1, 2, 3, 4]
    sample = detector_sample(100_000, 62_720, 0)
    assert len(sample) == (1 << 24) // 62_720 and (np.diff(sample) > 0).all()


def test_maps_are_averaged_and_features_taken_as_they_are() -> None:
    maps = np.arange(2 * 2 * 3 * 2, dtype=np.float16).reshape(2, 2, 3, 2)
    rows = np.array([[7.0], [8.0]], np.float32)
    found = average_maps([maps, rows]).numpy()
    np.testing.assert_allclose(found, np.concatenate([maps.mean((1, 2)), rows], axis=1))
