"""Metrics of several labels an image, their intervals, chance and the paired comparison."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score

from components.evaluate.metrics.average_precision import LabelRanking, chance_scores
from components.evaluate.metrics.bootstrap import (
    bootstrap,
    bootstrap_interval,
    probability_above_zero,
    resampled_weights,
)
from components.evaluate.metrics.label_comparison import compare_labels
from components.evaluate.metrics.multilabel import (
    LabelPredictions,
    measure_labels,
    precision_recall_points,
)

FREQUENCIES = [0.5, 0.3, 0.1, 0.05, 0.0]
CLASSES = ["cat", "dog", "owl", "fox", "yak"]


def predictions(seed: int, images: int = 200, margin: float = 2.0) -> LabelPredictions:
    """Return predictions with many ties; the last class has no image."""
    rng = np.random.default_rng(seed)
    true_labels = rng.random((images, len(FREQUENCIES))) < FREQUENCIES
    scores = rng.normal(true_labels * margin, 1.0)
    probabilities = np.round(1 / (1 + np.exp(1 - scores)), 2).astype(np.float32)
    return LabelPredictions(probabilities, probabilities >= 0.5, true_labels)


def once(images: int) -> np.ndarray:
    return np.ones((images, 1), np.float32)


def test_scores_of_weighted_images_are_those_of_scikit_learn() -> None:
    found = predictions(0)
    weights = np.random.default_rng(1).integers(0, 3, (200, 4)).astype(np.float32)
    weights[:, 0] = 1
    areas = found.ranking.average_precisions(weights)
    scores = found.scores(weights)
    for k, sample in enumerate(weights.T):
        expected = [
            average_precision_score(labels, row, sample_weight=sample)
            for labels, row in zip(found.true_labels.T[:4], found.probabilities.T[:4], strict=True)
        ]
        np.testing.assert_allclose(areas[:4, k], expected, atol=1e-5)
        assert scores["mean_average_precision"][k] == pytest.approx(np.mean(expected), abs=1e-5)
        for name in ("micro", "macro"):
            columns = slice(None) if name == "micro" else slice(4)
            f1 = f1_score(found.true_labels[:, columns], found.selected[:, columns],
                          average=name, sample_weight=sample)  # fmt: skip
            assert scores[f"{name}_f1"][k] == pytest.approx(f1, abs=1e-5)
    assert np.isnan(areas[4]).all()


def test_curve_goes_through_each_threshold_once() -> None:
    points = precision_recall_points(
        np.array([0.9, 0.8, 0.8, 0.1]), np.array([True, False, True, False])
    )
    assert points == [(0.5, 1.0), (1.0, 2 / 3), (1.0, 0.5)]


def test_classes_without_a_test_image_have_no_metrics_and_a_note() -> None:
    found = predictions(0)
    logits = np.where(found.true_labels, 3.0, -3.0)
    measured = measure_labels(found, logits, CLASSES, seed=0)
    yak = measured.per_class[4]
    assert (yak.support, np.isnan(yak.recall), np.isnan(yak.f1)) == (0, True, True)
    assert measured.notes == ["without a test image, and so without metrics: yak"]
    values = measured.values
    assert values["log_loss"] == pytest.approx(np.log1p(np.exp(-3.0)))
    exact = (found.selected == found.true_labels).all(axis=1).mean()
    assert values["exact_match"] == pytest.approx(exact)
    for name in ("mean_average_precision", "micro_f1", "macro_f1"):
        assert values[f"{name}_low"] < values[name] < values[f"{name}_high"]


def test_no_images_give_no_metrics() -> None:
    nothing = LabelPredictions(np.empty((0, 5), np.float32), *[np.empty((0, 5), bool)] * 2)
    assert measure_labels(nothing, np.empty((0, 5)), CLASSES, 0).values == {"test_images": 0.0}
    comparison = compare_labels(np.empty((0, 5)), np.empty((0, 5)), np.empty((0, 5), bool), "a", 0)
    assert np.isnan(comparison.difference) and not comparison.drops_at_most(0.5)


def test_resamples_have_as_many_images_and_depend_on_the_seed_only() -> None:
    weights = np.concatenate(list(resampled_weights(3000, seed=1)), axis=1)
    assert weights.shape == (3000, 1000)
    assert (weights.sum(axis=0) == 3000).all()
    np.testing.assert_array_equal(weights, np.concatenate([*resampled_weights(3000, 1)], axis=1))


def test_interval_of_a_mean_is_that_of_its_normal_approximation() -> None:
    values = np.random.default_rng(0).normal(5, 2, 400).astype(np.float32)

    def mean(weights):
        return {"mean": (values @ weights).astype(np.float64) / len(values)}

    resampled = bootstrap(mean, 400, seed=0)["mean"]
    low, high = bootstrap_interval(resampled, float(values.mean()))
    error = float(values.std()) / 20
    assert low == pytest.approx(float(values.mean()) - 1.96 * error, abs=0.2 * error)
    assert high == pytest.approx(float(values.mean()) + 1.96 * error, abs=0.2 * error)
    assert probability_above_zero(resampled, float(values.mean())) > 0.99


def test_interval_includes_a_score_that_is_lower_than_almost_all_resamples() -> None:
    rng = np.random.default_rng(0)
    true_labels = rng.random((300, 20)) < 0.03
    blind = rng.random((300, 20)).astype(np.float32)
    ranking = LabelRanking(blind, true_labels)
    score = ranking.means(once(300))[0]
    resampled = bootstrap(lambda weights: {"map": ranking.means(weights)}, 300, 0)["map"]
    assert (resampled < score).mean() < 0.1  # copies of an image are ranked together
    low, high = bootstrap_interval(resampled, score)
    assert low < score < high < np.quantile(resampled, 0.9)


def test_interval_includes_a_score_that_is_far_from_all_resamples() -> None:
    resampled = np.random.default_rng(0).normal(0.9, 0.01, 1000)
    low, high = bootstrap_interval(resampled, 0.8)
    assert low == pytest.approx(0.78, abs=0.003) and high == pytest.approx(0.82, abs=0.003)
    assert probability_above_zero(resampled, -0.03) < 0.01


def test_at_most_one_in_twenty_blind_models_is_above_chance() -> None:
    rng = np.random.default_rng(0)
    above = 0
    for seed in range(40):
        true_labels = rng.random((80, 4)) < [0.3, 0.1, 0.1, 0.05]
        blind = rng.normal(size=(80, 4)).astype(np.float32)
        limit = np.quantile(chance_scores(blind, true_labels, seed), 0.95)
        above += LabelRanking(blind, true_labels).means(once(80))[0] > limit
    assert above <= 5


def test_chance_has_the_areas_of_shuffled_images() -> None:
    found = predictions(0, images=40)
    shuffled = []
    for seed in range(200):
        order = np.random.default_rng(seed).permutation(40)
        shuffled += [*LabelRanking(found.probabilities, found.true_labels[order]).means(once(40))]
    chance = chance_scores(found.probabilities, found.true_labels, 0)
    assert chance.mean() == pytest.approx(np.mean(shuffled), abs=0.01)
    assert np.quantile(chance, 0.95) == pytest.approx(np.quantile(shuffled, 0.95), abs=0.03)


def test_paired_comparison_finds_the_better_model() -> None:
    found = predictions(0, images=400)
    noise = np.random.default_rng(2).normal(0, 0.35, found.probabilities.shape)
    worse = found.probabilities + noise
    comparison = compare_labels(worse, found.probabilities, found.true_labels, "pets version 3", 0)
    assert comparison.difference_high < 0 < comparison.champion_map - comparison.map
    assert comparison.p_worse < 0.01 and comparison.p_better > 0.99
    assert not comparison.drops_at_most(0.0) and comparison.drops_at_most(0.9)
    assert "against pets version 3 on 400 images" in comparison.summary


def test_equal_models_are_neither_better_nor_worse() -> None:
    found = predictions(0)
    same = compare_labels(found.probabilities, found.probabilities, found.true_labels, "a", 0)
    assert (same.difference, same.difference_low, same.difference_high) == (0, 0, 0)
    assert same.p_worse == same.p_better == 0.5
    assert same.drops_at_most(0.0)
