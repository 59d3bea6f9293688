"""Whether images differ from a model's reference: tests whose false alarms are limited together.

`correct` limits the chance of any alarm without a drift to the significance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from regraft_core.drift.class_counts import class_counts_test
from regraft_core.drift.joint_tests import combined_test, correct
from regraft_core.drift.permutations import (
    Found,
    class_means,
    classifier_test,
    comparable,
    lower_scores_test,
    mean_discrepancy_test,
)
from regraft_core.formats.drift_reference import DriftReference

TestName = Literal["classes", "classifier", "mean_discrepancy", "familiarity", "combined"]
MIN_PERMUTATIONS = 999
# Rows of the reference, and images, whose features are compared: memory grows with their square.
MAX_ROWS = 2000
# Permutations for each expected false alarm: whether a p-value is below the corrected limit should
# not depend on the random numbers.
PERMUTATIONS_PER_ALARM = 40


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

    Of more than `MAX_ROWS` images, or of the reference, all but the first test use a sample.

    Returns:
        The tests that are possible: `classes` (statistic: total variation distance of the
        frequencies of predicted classes), `classifier` (area under the ROC curve of a classifier
        of images and reference), `mean_discrepancy` (squared maximum mean discrepancy),
        `familiarity` (chance that an image is less familiar than a reference image), and
        `combined` (Fisher's statistic of the others' p-values). The second to fourth compare
        images within the predicted classes, so they need a class that both have.
    """
    options = options or CheckOptions()
    permutations, seed = options.permutations, options.seed
    found: dict[TestName, Found] = {
        "classes": class_counts_test(
            reference.predicted, images.predicted, len(reference.class_counts), permutations, seed
        )
    }
    before = _sampled(
        Observed(reference.features, reference.predicted, reference.familiarity), seed
    )
    now = _sampled(images, seed)
    labels = comparable(before.predicted, now.predicted, permutations, seed)
    if labels is not None:
        # One thread: the products are small, and threads of two BLAS libraries would compete.
        with threadpool_limits(1, "blas"):
            features = np.concatenate([before.features, now.features])[labels.rows]
            rows = standardized(features, labels.classes)
            products = rows @ rows.T
            found["classifier"] = classifier_test(products, labels)
            found["mean_discrepancy"] = mean_discrepancy_test(products, labels)
        scores = _known_scores(before.familiarity, now.familiarity)
        if scores is not None:
            found["familiarity"] = lower_scores_test(scores[labels.rows], labels)
        found["combined"] = combined_test(list(found.values()))
    corrected = correct(list(found.values()))
    return [
        DriftTest(name, one.statistic, float(one.p_values[0]), p, p <= options.significance)
        for (name, one), p in zip(found.items(), corrected, strict=True)
    ]


def standardized(rows: NDArray[np.floating], classes: NDArray[np.integer]) -> NDArray[np.float32]:
    """Return rows [n, width] with mean 0, and a standard deviation within the classes [n] of 1.

    Features that do not vary within the classes keep their scale.
    """
    values = rows.astype(np.float32)
    spread = (values - class_means(values, classes)).std(axis=0)
    scaled: NDArray[np.float32] = (values - values.mean(axis=0)) / np.where(spread > 0, spread, 1)
    return scaled


def _sampled(images: Observed, seed: int) -> Observed:
    """Return at most `MAX_ROWS` of the images."""
    order = np.random.default_rng(seed).permutation(len(images.predicted))
    chosen = np.sort(order[:MAX_ROWS])
    return Observed(*(values[chosen] for values in vars(images).values()))


def _known_scores(
    before: NDArray[np.floating], now: NDArray[np.floating]
) -> NDArray[np.floating] | None:
    """Return all scores, with the median for unknown ones; None if one side has none."""
    if not np.isfinite(before).any() or not np.isfinite(now).any():
        return None
    scores = np.concatenate([before, now])
    known = np.isfinite(scores)
    return np.where(known, scores, np.median(scores[known]))
