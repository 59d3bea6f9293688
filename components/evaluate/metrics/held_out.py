"""Probabilities of images that a model was not fitted to, which set its thresholds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class HeldOut:
    """Probabilities float32 [n, classes], finite and as served, with `true_labels` int [n].

    `scores` names the images: `out-of-fold` of train, with validation, or `validation` alone.
    """

    probabilities: NDArray[np.floating]
    true_labels: NDArray[np.integer]
    scores: str
