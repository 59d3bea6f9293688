"""Whether images differ from a model's reference: four tests whose false alarms are limited.

The p-values are corrected by Holm's method (1979), so that the chance of any alarm without a drift
is at most the significance, whatever the tests have in common.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from regraft_core.drift.class_counts import class_counts_test
from regraft_core.drift.permutations import (
    Found,
    Labels,
    classifier_test,
    comparable,
    lower_scores_test,
    mean_discrepancy_test,
)
from regraft_core.formats.drift_reference import DriftReference

TestName = Literal["classes", "classifier", "mean_discrepancy", "familiarity"]
MIN_PERMUTATIONS = 999
# Permutations for each expected false alarm, so that p-values below the corrected limit exist.
PERMUTATIONS_PER_ALARM = 10


@dataclass(frozen=True)
class Observed:
    """What a model computed for images.

    Attributes:
        features: pooled features [n, width], finite.
        predicted: indices [n] of the predicted classes.
        familiarity: scores [n]; NaN if unknown.
    """

    features: NDArray[np.floating]
    predicted: NDArray[np.integer]
    familiarity: NDArray[np.floating]


@dataclass(frozen=True)
class DriftTest:
    """The result of one test.

    Attributes:
        name: the test.
        statistic: its effect: see `check_drift`.
        p_value: before the correction.
        corrected: after the correction for the number of tests.
        alarm: whether `corrected` is at most the significance.
    """

    name: TestName
    statistic: float
    p_value: float
    corrected: float
    alarm: bool


@dataclass(frozen=True)
class CheckOptions:
    """The rate of false alarms of a whole check, and the seed of its permutations."""

    significance: float = 0.01
    seed: int = 0

    @property
    def permutations(self) -> int:
        """The number of permutations of each test."""
        return max(MIN_PERMUTATIONS, int(np.ceil(PERMUTATIONS_PER_ALARM / self.significance)) - 1)


def check_drift(
    reference: DriftReference, images: Observed, options: CheckOptions | None = None
) -> list[DriftTest]:
    """Test images against a model's reference.

    Returns:
        The tests that are possible: `classes` (statistic: total variation distance of the
        frequencies of predicted classes), `classifier` (area under the ROC curve of a classifier
        of images and reference), `mean_discrepancy` (squared maximum mean discrepancy), and
        `familiarity` (chance that an image is less familiar than a reference image). The last
        three compare images within the predicted classes, so they need a class that both have.
    """
    options = options or CheckOptions()
    permutations, seed = options.permutations, options.seed
    found: dict[TestName, Found] = {
        "classes": class_counts_test(
            reference.predicted, images.predicted, len(reference.class_counts), permutations, seed
        )
    }
    labels = comparable(reference.predicted, images.predicted, permutations, seed)
    # One thread each: the products are small, and threads of two BLAS libraries would compete.
    with threadpool_limits(1, "blas"):
        if labels is not None:
            rows = standardized(np.concatenate([reference.features, images.features]))[labels.rows]
            products = rows @ rows.T
            found["classifier"] = classifier_test(products, labels)
            found["mean_discrepancy"] = mean_discrepancy_test(products, labels)
        known = _with_familiarity(reference, images, permutations, seed)
        if known is not None:
            found["familiarity"] = lower_scores_test(*known)
    corrected = holm([one.p_value for one in found.values()])
    return [
        DriftTest(name, one.statistic, one.p_value, p, p <= options.significance)
        for (name, one), p in zip(found.items(), corrected, strict=True)
    ]


def standardized(rows: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return rows [n, width] with mean 0 and standard deviation 1 of each feature that varies."""
    values = rows.astype(np.float32)
    spread = values.std(axis=0)
    scaled: NDArray[np.float32] = (values - values.mean(axis=0)) / np.where(spread > 0, spread, 1)
    return scaled


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values after Holm's correction, which holds for dependent tests too."""
    order = np.argsort(p_values, kind="stable")
    factors = len(p_values) - np.arange(len(p_values))
    sorted_values = np.maximum.accumulate(np.asarray(p_values)[order] * factors)
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(sorted_values, 1.0)
    return [float(one) for one in corrected]


def _with_familiarity(
    reference: DriftReference, images: Observed, permutations: int, seed: int
) -> tuple[NDArray[np.floating], Labels] | None:
    """Return the scores that are known and their labels; None if there are none to compare."""
    scores = np.concatenate([reference.familiarity, images.familiarity])
    predicted = np.concatenate([reference.predicted, images.predicted])
    known = np.isfinite(scores)
    first = int(known[: len(reference.predicted)].sum())
    scores, predicted = scores[known], predicted[known]
    labels = comparable(predicted[:first], predicted[first:], permutations, seed)
    return None if labels is None else (scores[labels.rows], labels)
