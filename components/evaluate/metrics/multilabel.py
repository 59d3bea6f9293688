"""Metrics of a classifier that predicts several labels an image, also of weighted images.

Each class is a decision of its own: an image has the label if its probability reaches the
threshold of the class. A class without a test image of it has no average precision, recall or F1,
so the means over classes are those of the other classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.evaluate.metrics.bootstrap import (
    ROUNDS,
    batches_of_rounds,
    bootstrap,
    bootstrap_interval,
)
from components.evaluate.metrics.classification import SplitMetrics
from regraft_core.formats.manifests.evaluation import ClassMetrics
from regraft_core.training.intervals import wilson_interval

Floats = NDArray[np.floating]
Flags = NDArray[np.bool_]

MEAN_AP, MICRO_F1, MACRO_F1 = "mean_average_precision", "micro_f1", "macro_f1"
_SHOWN_NAMES = 5


@dataclass(frozen=True)
class LabelPredictions:
    """Predictions of n images, each array [n, classes].

    `probabilities` are floats as served, `selected` is which labels are predicted, `true_labels`
    is which labels the images have; all are finite.
    """

    probabilities: Floats
    selected: Flags
    true_labels: Flags

    def scores(self, weights: Floats) -> dict[str, Floats]:
        """Return mAP, micro F1 and macro F1 of weighted images, float64 [rounds].

        Args:
            weights: of the images, float32 [n, rounds]; whole numbers are copies.
        """
        hits, positives, selected = (
            flags.T.astype(np.float32) @ weights
            for flags in (self.selected & self.true_labels, self.true_labels, self.selected)
        )
        either = selected + positives
        known = positives > 0
        return {
            MEAN_AP: mean_average_precision(self.probabilities, self.true_labels, weights),
            MICRO_F1: _ratio(2 * hits.sum(axis=0), either.sum(axis=0)),
            MACRO_F1: _mean_of_known(_ratio(2 * hits, either), known),
        }


def mean_average_precision(probabilities: Floats, true_labels: Flags, weights: Floats) -> Floats:
    """Return the mean of `average_precisions` over classes with images, float64 [rounds]."""
    found = average_precisions(probabilities, true_labels, weights)
    return _mean_of_known(found, np.isfinite(found))


def average_precisions(probabilities: Floats, true_labels: Flags, weights: Floats) -> Floats:
    """Return the average precision of each class, float64 [classes, rounds].

    That is the mean, over the images of the class, of the precision among all images that have at
    least their probability, so images with the same probability count together. It is the area
    under the stepwise precision-recall curve. NaN for a class without images.

    Args:
        probabilities: float [n, classes].
        true_labels: bool [n, classes].
        weights: of the images, float32 [n, rounds].
    """
    found = np.full((probabilities.shape[1], weights.shape[1]), np.nan)
    for k in np.flatnonzero(true_labels.any(axis=0)):
        order = np.argsort(-probabilities[:, k], kind="stable")
        ranked, is_true = probabilities[order, k], true_labels[order, k]
        # Where the images with the probability of each image of the class end.
        ends = np.searchsorted(-ranked, -np.unique(ranked[is_true])[::-1], side="right")
        starts, ordered = np.r_[0, ends[:-1]], weights[order[: ends[-1]]]
        above = np.add.reduceat(ordered, starts, axis=0).cumsum(axis=0)
        gained = np.add.reduceat(ordered * is_true[: ends[-1], None], starts, axis=0)
        found[k] = _area(gained, above)
    return found


def chance_scores(probabilities: Floats, true_labels: Flags, seed: int) -> Floats:
    """Return the mAP of the same predictions for shuffled images, float64 [rounds].

    A model that knows nothing of the images is one of these, however many images each class has, so
    they are those of a permutation test (Fisher 1935).

    Args:
        probabilities: float [n, classes].
        true_labels: bool [n, classes].
        seed: of the permutations.
    """
    images, (known,) = len(true_labels), np.nonzero(true_labels.any(axis=0))
    if not len(known):
        return np.full(ROUNDS, np.nan)
    generator, means = np.random.default_rng(seed), []
    for rounds in batches_of_rounds(images, ROUNDS):
        # All classes are shuffled with the same permutations.
        shuffled = np.argsort(generator.random((images, rounds), np.float32), axis=0)
        areas = []
        for k in known:
            ranked = -np.sort(-probabilities[:, k])
            starts = np.flatnonzero(np.r_[True, np.diff(ranked) != 0])
            above = np.r_[starts[1:], images][:, None].astype(np.float32)
            found = true_labels[shuffled, k].astype(np.float32)
            areas.append(_area(np.add.reduceat(found, starts, axis=0), above))
        means.append(np.mean(areas, axis=0))
    return np.concatenate(means)


def _area(gained: Floats, above: Floats) -> Floats:
    """Return the area under stepwise precision-recall curves, float64 [rounds].

    Args:
        gained: images of the class at each threshold, by falling threshold, [thresholds, rounds].
        above: all images that reach the threshold.
    """
    hits = gained.cumsum(axis=0)
    precision = np.divide(hits, above, out=np.zeros_like(hits), where=above > 0)
    return _ratio((precision * gained).sum(axis=0), hits[-1])


def precision_recall_points(probabilities: Floats, true_labels: Flags) -> list[tuple[float, float]]:
    """Return the (recall, precision) of one class at each of its thresholds, by falling threshold.

    Args:
        probabilities: of the class, float [n].
        true_labels: whether the images have the label, bool [n], at least one of them.
    """
    order = np.argsort(-probabilities, kind="stable")
    hits = np.cumsum(true_labels[order])
    last = np.flatnonzero(np.r_[np.diff(probabilities[order]) != 0, True])
    recall, precision = hits[last] / hits[-1], hits[last] / (last + 1)
    return [*zip(recall.tolist(), precision.tolist(), strict=True)]


def measure_labels(
    predictions: LabelPredictions, logits: Floats, classes: list[str], seed: int
) -> SplitMetrics:
    """Measure predictions of the test split; intervals are of the bootstrap over images.

    Args:
        predictions: of the test images.
        logits: of the probabilities, for the log loss, which is the mean over images and classes.
        classes: names in the order of the columns.
        seed: of the bootstrap.
    """
    images = len(predictions.true_labels)
    values = {"test_images": float(images)}
    if not images:
        return SplitMetrics(values, _per_class(predictions, classes), [], [])
    scores = {
        name: float(one[0])
        for name, one in predictions.scores(np.ones((images, 1), np.float32)).items()
    }
    resampled = bootstrap(predictions.scores, images, seed)
    for name, score in scores.items():
        low, high = bootstrap_interval(resampled[name], score)
        values |= {name: score, f"{name}_low": low, f"{name}_high": high}
    exact = (predictions.selected == predictions.true_labels).all(axis=1)
    values |= {"exact_match": float(exact.mean()), "log_loss": _log_loss(logits, predictions)}
    values = {name: value for name, value in values.items() if math.isfinite(value)}
    absent = [
        name
        for name, count in zip(classes, predictions.true_labels.sum(axis=0), strict=True)
        if not count
    ]
    return SplitMetrics(values, _per_class(predictions, classes), [], _note_absent(absent))


def _log_loss(logits: Floats, predictions: LabelPredictions) -> float:
    exact = logits.astype(np.float64)
    return float((np.logaddexp(0.0, exact) - exact * predictions.true_labels).mean())


def _note_absent(names: list[str]) -> list[str]:
    if not names:
        return []
    shown = ", ".join(names[:_SHOWN_NAMES])
    more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
    return [f"without a test image, and so without metrics: {shown}{more}"]


def _per_class(predictions: LabelPredictions, classes: list[str]) -> list[ClassMetrics]:
    hits = (predictions.selected & predictions.true_labels).sum(axis=0).tolist()
    positives = predictions.true_labels.sum(axis=0).tolist()
    selected = predictions.selected.sum(axis=0).tolist()
    rows = []
    for name, hit, positive, chosen in zip(classes, hits, positives, selected, strict=True):
        low, high = wilson_interval(hit, positive)
        rows.append(
            ClassMetrics(
                name=name,
                support=positive,
                precision=hit / chosen if chosen else math.nan,
                recall=hit / positive if positive else math.nan,
                f1=2 * hit / (chosen + positive) if positive else math.nan,
                recall_low=low,
                recall_high=high,
            )
        )
    return rows


def _ratio(part: Floats, whole: Floats) -> Floats:
    """Return part / whole in float64; NaN where the whole is 0."""
    result = np.full(np.shape(whole), np.nan)
    np.divide(part, whole, out=result, where=whole > 0)
    return result


def _mean_of_known(values: Floats, known: Flags) -> Floats:
    """Return the means over known classes, float64 [rounds]; NaN where no class is known."""
    total = np.where(known, values, 0.0).sum(axis=0)
    return _ratio(total, known.sum(axis=0))
