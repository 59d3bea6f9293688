"""Calibration error of the confidence, and temperature scaling, which reduces it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp, softmax
from scipy.stats import t as student

BINS = 15
FOLDS = 5
SIGNIFICANCE = 0.05
LOWEST, HIGHEST = 0.05, 20.0

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]


@dataclass(frozen=True)
class Bin:
    """One bin of the reliability diagram: images with a confidence in (low, high]."""

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


def reliability(probabilities: Floats, true_labels: Ints, bins: int = BINS) -> list[Bin]:
    """Group images by confidence into `bins` of equal width; empty bins are omitted.

    Args:
        probabilities: float [n, classes], rows sum to 1.
        true_labels: int [n], class indices.
        bins: number of bins in 0..1.
    """
    correct = probabilities.argmax(axis=1) == true_labels
    return _group(probabilities.max(axis=1), correct, bins)


def label_reliability(
    probabilities: Floats, true_labels: NDArray[np.bool_], bins: int = BINS
) -> list[Bin]:
    """Group all pairs of an image and a label by the label's probability, as `reliability` does.

    The accuracy of a bin is the fraction of its pairs whose image has the label.

    Args:
        probabilities: float [n, classes].
        true_labels: bool [n, classes].
        bins: number of bins in 0..1.
    """
    return _group(probabilities.ravel(), true_labels.ravel(), bins)


def _group(confidence: Floats, correct: NDArray[np.bool_], bins: int) -> list[Bin]:
    bin_of = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    return [
        Bin(
            low=k / bins,
            high=(k + 1) / bins,
            count=int(np.sum(bin_of == k)),
            confidence=float(confidence[bin_of == k].mean()),
            accuracy=float(correct[bin_of == k].mean()),
        )
        for k in np.unique(bin_of).tolist()
    ]


def calibration_error(probabilities: Floats, true_labels: Ints, bins: int = BINS) -> float:
    """Return the expected calibration error (Naeini et al. 2015; Guo et al. 2017).

    The mean difference between confidence and accuracy over the bins, weighted by their images.
    """
    return error_of_bins(reliability(probabilities, true_labels, bins))


def error_of_bins(groups: list[Bin]) -> float:
    """Return the mean difference between confidence and accuracy, weighted by the counts."""
    total = sum(b.count for b in groups)
    return sum(b.count * abs(b.confidence - b.accuracy) for b in groups) / total


def to_probabilities(logits: Floats, temperature: float = 1.0) -> Floats:
    """Return softmax(logits / temperature), float64 [n, classes].

    A positive temperature keeps the order of the classes, so it never changes a prediction.
    """
    result: Floats = softmax(np.asarray(logits, np.float64) / temperature, axis=1)
    return result


def to_served(logits: Floats, temperature: float) -> Floats:
    """Return softmax(logits / temperature), float32 [n, classes], rounded as the model serves it.

    Thresholds must be set on these: many confidences that differ in float64 are 1 in float32.
    """
    result: Floats = softmax(np.asarray(logits, np.float32) / np.float32(temperature), axis=1)
    return result


def fit_temperature(logits: Floats, true_labels: Ints) -> float:
    """Return the temperature with the lowest log loss on these images (Guo et al. 2017).

    1.0 if the data do not determine it: no image, values that are not finite, or no error (then the
    loss decreases with the temperature, without a minimum).

    Args:
        logits: float [n, classes] of the validation split.
        true_labels: int [n], class indices.
    """
    logits = np.asarray(logits, np.float64)
    if not np.isfinite(logits).all():
        return 1.0
    if (logits.argmax(axis=1) == true_labels).all():
        return 1.0

    def loss(log_inverse: float) -> float:
        return float(_log_losses(logits, true_labels, np.exp(-log_inverse)).mean())

    bounds = (-np.log(HIGHEST), -np.log(LOWEST))
    result = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6})
    return float(np.exp(-result.x)) if result.fun < loss(0.0) else 1.0


def choose_temperature(logits: Floats, true_labels: Ints) -> float:
    """Return the fitted temperature, or 1.0 if it does not significantly reduce the log loss.

    Cross-fitted: each fold is scaled by the temperature of the other folds. The mean of the paired
    differences in log loss per image must be above 0 by a one-sided t-test.

    Args:
        logits: float [n, classes] of the validation split.
        true_labels: int [n], class indices.
    """
    fold = np.arange(len(true_labels)) % FOLDS
    gains = np.zeros(len(true_labels))
    for k in range(min(FOLDS, len(true_labels))):
        held_out = fold == k
        temperature = fit_temperature(logits[~held_out], true_labels[~held_out])
        plain, scaled = (
            _log_losses(logits[held_out], true_labels[held_out], t) for t in (1.0, temperature)
        )
        gains[held_out] = plain - scaled
    if len(gains) < 2:
        return 1.0
    noise = gains.std(ddof=1) / np.sqrt(len(gains)) * student.ppf(1 - SIGNIFICANCE, len(gains) - 1)
    return fit_temperature(logits, true_labels) if gains.mean() > noise else 1.0


def _log_losses(logits: Floats, true_labels: Ints, temperature: float) -> Floats:
    """Return the log loss of each image, float64 [n]."""
    scaled = np.asarray(logits, np.float64) / temperature
    losses: Floats = logsumexp(scaled, axis=1) - scaled[np.arange(len(scaled)), true_labels]
    return losses
