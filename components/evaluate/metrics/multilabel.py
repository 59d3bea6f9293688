"""Metrics of a classifier that predicts several labels an image, also of weighted images.

Each class is a decision of its own: an image has the label if its probability reaches the
threshold of the class. A class without a test image of it has no average precision, recall or F1,
so the means over classes are those of the other classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from components.evaluate.metrics.average_precision import LabelRanking
from components.evaluate.metrics.bootstrap import bootstrap, bootstrap_interval
from components.evaluate.metrics.classification import SplitMetrics
from components.evaluate.metrics.means import mean_of_known, ratio
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

    @cached_property
    def ranking(self) -> LabelRanking:
        """The order of the images by the probabilities of each class."""
        return LabelRanking(self.probabilities, self.true_labels)

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
            MEAN_AP: self.ranking.means(weights),
            MICRO_F1: ratio(2 * hits.sum(axis=0), either.sum(axis=0)),
            MACRO_F1: mean_of_known(ratio(2 * hits, either), known),
        }


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
