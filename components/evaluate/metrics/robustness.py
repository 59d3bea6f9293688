"""How much accuracy corruptions of the images cost, image by image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from components.evaluate.metrics.slices import NO_LABEL
from regraft_core.training.intervals import difference_interval

Ints = NDArray[np.integer]


@dataclass(frozen=True)
class CorruptionDrop:
    """The accuracy on corrupted images, and its drop below that on the same clean ones.

    The bounds are those of the drop's 95% interval.
    """

    kind: str
    strength: int
    images: int
    clean_accuracy: float
    accuracy: float
    drop: float
    drop_low: float
    drop_high: float

    @classmethod
    def of(cls, kind: str, strength: int, clean: Ints, corrupted: Ints, labels: Ints) -> Self:
        """Compare the labels that a model predicts for clean and corrupted images, int [n]."""
        right, still = clean == labels, corrupted == labels
        lost, gained = int((right & ~still).sum()), int((~right & still).sum())
        low, high = difference_interval(lost, gained, len(labels))
        accuracies = float(right.mean()), float(still.mean())
        drop = (lost - gained) / len(labels)
        return cls(kind, strength, len(labels), *accuracies, drop, low, high)


def predicted_labels(logits: NDArray[np.floating]) -> NDArray[np.int64]:
    """Return the labels int [n] of logits [n, classes]; `NO_LABEL` if one is not finite."""
    labels: NDArray[np.int64] = logits.argmax(axis=1).astype(np.int64)
    labels[~np.isfinite(logits).all(axis=1)] = NO_LABEL
    return labels


def mean_drops(drops: Sequence[CorruptionDrop]) -> Mapping[str, float]:
    """Return the mean drop over the strengths of each kind, the largest first."""
    by_kind: dict[str, list[float]] = {}
    for one in drops:
        by_kind.setdefault(one.kind, []).append(one.drop)
    means = {kind: float(np.mean(found)) for kind, found in by_kind.items()}
    return dict(sorted(means.items(), key=lambda pair: -pair[1]))


def corruption_metrics(drops: Sequence[CorruptionDrop]) -> Mapping[str, float]:
    """Return the mean drop of each kind by the name of a metric."""
    return {f"corruption_drop_{kind}": drop for kind, drop in mean_drops(drops).items()}
