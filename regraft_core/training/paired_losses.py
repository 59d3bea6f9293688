"""Two models compared image by image, by their log losses on validation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

# Lower than usual, because the best of several epochs and learning rates is compared.
SIGNIFICANCE = 0.01
# Divided by the number of trainings of a search, of which the best one is compared (Bonferroni).
SEARCH_SIGNIFICANCE = 0.05


@dataclass(frozen=True)
class PairedLosses:
    """How the mean log loss of a model differs from that of another, on the same images.

    The images have most of their difficulty in common, so the standard error of the difference is
    far smaller than that of each mean (Diebold and Mariano, Comparing predictive accuracy, 1995).
    The best of many trainings is so partly by chance: `trainings` is how many were compared.
    """

    images: int
    difference: float
    standard_error: float
    trainings: int = 1

    @property
    def promising(self) -> bool:
        """Whether the loss is lower by more than a standard error: enough to train on."""
        return self.difference < -self.standard_error

    @property
    def better(self) -> bool:
        """Whether the loss is significantly lower, by a one-sided t-test."""
        if self.images < 2 or not math.isfinite(self.difference):
            return False
        significance = min(SIGNIFICANCE, SEARCH_SIGNIFICANCE / self.trainings)
        quantile = float(student.ppf(1 - significance, self.images - 1))
        return self.difference < -quantile * self.standard_error

    def __str__(self) -> str:
        return f"{self.difference:+.4f} ± {self.standard_error:.4f}"


def room_below(losses: NDArray[np.floating]) -> PairedLosses:
    """Return how the losses of a model that is certain of every true label, 0, differ from these.

    If that is not significant, no other model can be shown to be better on these images, however
    long it is trained.
    """
    return compare_losses(np.zeros_like(losses), losses)


def no_room(strategy: str, room: PairedLosses) -> str:
    """Return in a sentence why a strategy was not trained."""
    return (
        f"{strategy} was not trained: even a model without any loss would not be significantly "
        f"better than the head on these {room.images} validation images (log loss {room})."
    )


def compare_losses(losses: NDArray[np.floating], others: NDArray[np.floating]) -> PairedLosses:
    """Return how `losses` [n] differ from those of another model, image by image."""
    differences = np.asarray(losses, np.float64) - np.asarray(others, np.float64)
    images = len(differences)
    error = differences.std(ddof=1) / math.sqrt(images) if images > 1 else math.nan
    return PairedLosses(images, float(differences.mean()), float(error))
