"""Metrics of a classifier on one split, from probabilities and true labels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import (
    confusion_matrix,
    f1_score,
    log_loss,
    precision_recall_fscore_support,
    roc_auc_score,
    roc_curve,
)

from regraft_core.formats.manifests.evaluation import ClassMetrics
from regraft_core.training.intervals import wilson_interval

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]
TOP_K = (3, 5)


@dataclass(frozen=True)
class SplitMetrics:
    """Metrics by name (only the available ones), by class, and the confusion matrix.

    `confusion[i][j]` counts the images of class i that are predicted as j.
    """

    values: dict[str, float]
    per_class: list[ClassMetrics]
    confusion: list[list[int]]
    notes: list[str]


def measure_predictions(
    probabilities: Floats, true_labels: Ints, classes: list[str]
) -> SplitMetrics:
    """Measure predictions of the test split.

    Args:
        probabilities: float [n, classes], finite, rows sum to 1.
        true_labels: int [n], indices into `classes`.
        classes: names in the order of the columns.
    """
    indices = np.arange(len(classes))
    predicted = probabilities.argmax(axis=1) if len(true_labels) else np.empty(0, int)
    correct = int(np.sum(predicted == true_labels))
    low, high = wilson_interval(correct, len(true_labels))
    values = {"test_images": float(len(true_labels))}
    notes: list[str] = []
    if len(true_labels):
        values |= {
            "test_accuracy": correct / len(true_labels),
            "test_accuracy_low": low,
            "test_accuracy_high": high,
            "macro_f1": float(f1_score(true_labels, predicted, average="macro", zero_division=0)),
            "log_loss": float(log_loss(true_labels, probabilities, labels=indices)),
        }
        values |= _top_k_accuracies(probabilities, true_labels)
        area = roc_auc(probabilities, true_labels)
        if math.isnan(area):
            notes.append("ROC AUC needs test images of at least two classes")
        else:
            values["roc_auc"] = area
    return SplitMetrics(
        values=values,
        per_class=_per_class(predicted, true_labels, classes),
        confusion=confusion_matrix(true_labels, predicted, labels=indices).tolist()
        if len(true_labels)
        else [[0] * len(classes) for _ in classes],
        notes=notes,
    )


def _top_k_accuracies(probabilities: Floats, true_labels: Ints) -> dict[str, float]:
    """Return the top-k accuracies for each k below the number of classes."""
    order = np.argsort(-probabilities, axis=1, kind="stable")
    return {
        f"test_top{k}_accuracy": float((order[:, :k] == true_labels[:, None]).any(axis=1).mean())
        for k in TOP_K
        if k < probabilities.shape[1]
    }


def roc_auc(probabilities: Floats, true_labels: Ints) -> float:
    """Return the area under the ROC curve, one class against the rest, averaged over classes.

    Classes with no test image, or with all of them, have no curve and are skipped; NaN if none is
    left.
    """
    areas = [
        roc_auc_score(true_labels == k, probabilities[:, k])
        for k in range(probabilities.shape[1])
        if 0 < np.sum(true_labels == k) < len(true_labels)
    ]
    return float(np.mean(areas)) if areas else math.nan


def roc_points(probabilities: Floats, true_labels: Ints) -> tuple[Floats, Floats, Floats]:
    """Return (false positive rate, true positive rate, threshold), micro-averaged over classes.

    Every pair of image and class is one decision: is the image of that class?

    Args:
        probabilities: float [n, classes].
        true_labels: class indices, int [n], or which classes the images have, 0 or 1 [n, classes].
    """
    several = true_labels.ndim == 2
    is_class = true_labels if several else true_labels[:, None] == np.arange(probabilities.shape[1])
    false_rate, true_rate, threshold = roc_curve(is_class.ravel(), probabilities.ravel())
    # The first threshold means "nothing is positive" and is infinite; JSON has no infinity.
    return false_rate, true_rate, np.where(np.isfinite(threshold), threshold, 1.0)


def _per_class(predicted: Ints, true_labels: Ints, classes: list[str]) -> list[ClassMetrics]:
    if not len(true_labels):
        names = ("precision", "recall", "f1", "recall_low", "recall_high")
        unknown = dict.fromkeys(names, math.nan)
        return [ClassMetrics(name=name, support=0, **unknown) for name in classes]
    precision, recall, f1, support = precision_recall_fscore_support(
        true_labels, predicted, labels=np.arange(len(classes)), zero_division=np.nan
    )
    rows = []
    for k, name in enumerate(classes):
        hits = int(np.sum((true_labels == k) & (predicted == k)))
        low, high = wilson_interval(hits, int(support[k]))
        rows.append(
            ClassMetrics(
                name=name,
                support=int(support[k]),
                precision=float(precision[k]),
                recall=float(recall[k]),
                f1=float(f1[k]),
                recall_low=low,
                recall_high=high,
            )
        )
    return rows
