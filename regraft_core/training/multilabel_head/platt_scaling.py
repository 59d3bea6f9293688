"""Calibration of the labels' probabilities, each by a slope and an intercept of its logit.

A common temperature has a higher log loss on held-out images at nearly all sizes (`regraft bench
several_labels`): the penalty that suits all labels is too strong for some and too weak for others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from regraft_core.training.linear_head.linear_classifier import Weights
from regraft_core.training.multilabel_head.binary_regressions import binary_losses

Floats = NDArray[np.float64]
# The order of the images by a label never changes.
LEAST_SLOPE = 1e-2


@dataclass(frozen=True)
class PlattScaling:
    """The calibrated logits are `slopes * logits + intercepts`, [k] each."""

    slopes: Floats
    intercepts: Floats

    @classmethod
    def fit(cls, logits: Floats, labels: NDArray[np.integer]) -> Self:
        """Return the scaling with the lowest log loss of each label (Platt, 1999).

        The targets are those of Platt: with one more image that has the label, and one that has
        not, so that a label without errors keeps finite logits. A label that all images have, or
        none, keeps its logits: the targets alone would make all probabilities nearly equal.

        Args:
            logits: float [n, k], of images that the model was not fitted to.
            labels: 0 or 1, [n, k].
        """
        having = labels.sum(axis=0)
        lacking = len(labels) - having
        targets = np.where(labels > 0, (having + 1) / (having + 2), 1 / (lacking + 2))
        found = [
            _fit(*columns) if both else np.array([1.0, 0.0])
            for *columns, both in zip(logits.T, targets.T, having * lacking > 0, strict=True)
        ]
        return cls(*np.array(found).T)

    def logits(self, logits: Floats) -> Floats:
        """Return calibrated logits [n, k]."""
        return logits * self.slopes + self.intercepts

    def weights(self, weights: Weights) -> Weights:
        """Return the classifiers with calibrated logits."""
        return Weights(weights.kernel * self.slopes, self.logits(weights.bias))


def _fit(logits: Floats, targets: Floats) -> Floats:
    def loss(parameters: Floats) -> tuple[float, Floats]:
        scaled = parameters[0] * logits + parameters[1]
        errors = expit(scaled) - targets
        gradient = np.array([(errors * logits).mean(), errors.mean()])
        return float(binary_losses(scaled, targets).mean()), gradient

    bounds = [(LEAST_SLOPE, None), (None, None)]
    found: Floats = minimize(loss, [1.0, 0.0], jac=True, method="L-BFGS-B", bounds=bounds).x
    return found
