"""How good held-out logits are, and what makes them better: a temperature, and an offset."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from regraft_core.formats.options.option_types import Objective

Floats = NDArray[np.float64]
# Multiples of the logarithm of the class frequencies that an offset subtracts from the logits.
OFFSETS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
# Largest absolute logarithm of a temperature.
LOG_TEMPERATURES = 9.0


def fit_temperature(logits: Floats, labels: NDArray[np.int32]) -> float:
    """Return the temperature with the lowest smoothed loss; strong penalties need a small one."""

    def loss(log_inverse: float) -> float:
        return smoothed_loss(logits * math.exp(log_inverse), labels)

    found = minimize_scalar(loss, bounds=(-LOG_TEMPERATURES, LOG_TEMPERATURES), method="bounded")
    return math.exp(-found.x) if found.fun < loss(0.0) else 1.0


def log_loss(logits: Floats, labels: NDArray[np.int32]) -> float:
    """Return the mean cross-entropy of logits [n, k]."""
    return -float(log_softmax(logits, axis=1)[np.arange(len(labels)), labels].mean())


def smoothed_loss(logits: Floats, labels: NDArray[np.int32]) -> float:
    """Return the log loss with one image more, whose class is unknown (after Platt, 1999).

    Without it, the temperature of images that are all predicted correctly would be zero.
    """
    logs = log_softmax(logits, axis=1)
    known = logs[np.arange(len(labels)), labels].mean()
    return -float((len(labels) * known + logs.mean()) / (len(labels) + 1))


def score(objective: Objective, predicted: NDArray[Any], labels: NDArray[np.int32]) -> float:
    """Return the accuracy, the mean recall or the mean F1 of predictions, over the classes."""
    if objective == "accuracy":
        return float((predicted == labels).mean())
    present = np.unique(labels)
    hits = np.array([np.sum((labels == k) & (predicted == k)) for k in present])
    actual = np.array([np.sum(labels == k) for k in present])
    if objective == "balanced-accuracy":
        return float((hits / actual).mean())
    given = np.array([np.sum(predicted == k) for k in present])
    return float((2 * hits / (actual + given)).mean())


def choose_offset(
    objective: Objective, logits: Floats, labels: NDArray[np.int32], frequencies: Floats
) -> Floats:
    """Return the offset of the logits [k] that serves the objective best on held-out logits.

    It is a multiple of the logarithm of the class frequencies (logit adjustment, Menon et al.
    2021); none for accuracy, which the unweighted training serves already.
    """
    direction = -np.log(frequencies)
    direction -= direction.mean()
    if objective == "accuracy" or not len(labels):
        return np.zeros(len(frequencies))
    scores = [score(objective, (logits + m * direction).argmax(1), labels) for m in OFFSETS]
    return OFFSETS[int(np.argmax(scores))] * direction
