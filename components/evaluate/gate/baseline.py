"""What the default rule compares: the best constant prediction, and each class's recall.

A model that always predicts one class can have a high accuracy and is useless. So the lower bound
of the score must be above the score of the best constant prediction, and no class may have a recall
that is shown to be below a floor. Both are arithmetic on the counts of each class.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy.stats import beta

from regraft_core.formats.options.option_types import Objective
from regraft_core.training.intervals import wilson_interval

OBJECTIVE_NAMES: Mapping[Objective, str] = {
    "accuracy": "accuracy",
    "balanced-accuracy": "balanced accuracy",
    "macro-f1": "macro F1",
}
CONFIDENCE = 0.95
BASELINE = "baseline"


@dataclass(frozen=True)
class ClassCount:
    """Test images of a class, how many of them are predicted correctly, and how many predictions
    of all images are this class, which only the F1 needs.
    """

    name: str
    correct: int
    images: int
    predicted: int = 0


@dataclass(frozen=True)
class Baseline:
    """The score of a model and that of the best constant prediction, by the run's objective.

    `score_low` is the one-sided lower bound at 95%; `perfect_low` is that of a model without an
    error, so it shows what these test images can show at all. NaN without test images.
    """

    objective: Objective
    score: float
    score_low: float
    perfect_low: float
    constant_score: float
    constant_class: str


@dataclass(frozen=True)
class RecallBound:
    """The upper bound of a recall: of one class, or (`all classes`) of all images together."""

    name: str
    correct: int
    images: int
    high: float


def compare_with_constant(counts: Sequence[ClassCount], objective: Objective) -> Baseline:
    """Return a model's score and that of the best constant prediction on the same images.

    Args:
        counts: of each class; classes without test images do not count.
        objective: `accuracy`; `balanced-accuracy`, the mean recall, for which each constant
            prediction scores one over the number of classes; or `macro-f1`, the mean F1.
    """
    counts = [count for count in counts if count.images]
    if not counts:
        return Baseline(objective, math.nan, math.nan, math.nan, math.nan, "")
    most = max(counts, key=lambda count: count.images)
    images = sum(count.images for count in counts)
    if objective == "accuracy":
        correct = sum(count.correct for count in counts)
        low, perfect = _lower(correct, images), _lower(images, images)
        return Baseline(objective, correct / images, low, perfect, most.images / images, most.name)
    flawless = [ClassCount(c.name, c.images, c.images, c.images) for c in counts]
    if objective == "balanced-accuracy":
        score, low = _mean_recall(counts)
        constant = 1 / len(counts)
        return Baseline(objective, score, low, _mean_recall(flawless)[1], constant, most.name)
    score, low = _mean_f1(counts)
    constant = 2 * most.images / (images + most.images) / len(counts)
    return Baseline(objective, score, low, _mean_f1(flawless)[1], constant, most.name)


def _lower(correct: int, images: int) -> float:
    """Return the one-sided lower bound of a fraction."""
    return wilson_interval(correct, images, 2 * CONFIDENCE - 1)[0]


def _mean_recall(counts: Sequence[ClassCount]) -> tuple[float, float]:
    """Return the mean recall and its lower bound."""
    recalls = [count.correct / count.images for count in counts]
    return _mean(recalls, [_lower(count.correct, count.images) for count in counts])


def _mean_f1(counts: Sequence[ClassCount]) -> tuple[float, float]:
    """Return the mean F1 and its lower bound.

    The F1 is 2 J / (1 + J) for the fraction J of the correct ones among the images that are of the
    class or predicted as it. An error counts in two classes, so the variance of the sum is at most
    twice the sum of the variances.
    """

    def f1(fraction: float) -> float:
        return 2 * fraction / (1 + fraction)

    either = [count.images + count.predicted - count.correct for count in counts]
    pairs = list(zip(counts, either, strict=True))
    scores = [f1(count.correct / images) for count, images in pairs]
    lows = [f1(_lower(count.correct, images)) for count, images in pairs]
    return _mean(scores, lows, variance_ratio=2.0)


def _mean(
    scores: Sequence[float], lows: Sequence[float], variance_ratio: float = 1.0
) -> tuple[float, float]:
    """Return the mean of scores and its lower bound, from each one's (Zou and Donner 2008)."""
    mean, k = sum(scores) / len(scores), len(scores)
    squares = sum((score - low) ** 2 for score, low in zip(scores, lows, strict=True))
    return mean, mean - math.sqrt(variance_ratio * squares) / k


def recall_bounds(counts: Sequence[ClassCount], *, together: bool = True) -> list[RecallBound]:
    """Return the upper bounds of the recalls, the lowest first.

    The bounds are those of Clopper and Pearson (1934), which are exact, at a level that is divided
    by their number (Bonferroni): if no recall is below a floor, one of the bounds is in at most 5%
    of runs, however many classes there are.

    Args:
        counts: of each class.
        together: whether one more bound covers all images, which detects many weak classes with few
            test images each. It needs independent images, so that none may count for two classes.
    """
    counts = [count for count in counts if count.images]
    if not counts:
        return []
    total = ClassCount("all classes", sum(c.correct for c in counts), sum(c.images for c in counts))
    counts = [total, *counts] if together else counts
    level = (1 - CONFIDENCE) / len(counts)
    bounds = [
        RecallBound(c.name, c.correct, c.images, _upper(c.correct, c.images, level)) for c in counts
    ]
    return sorted(bounds, key=lambda bound: bound.high)


def _upper(correct: int, images: int, level: float) -> float:
    if correct == images:
        return 1.0
    return float(beta.ppf(1 - level, correct + 1, images - correct))


def baseline_metrics(baseline: Baseline, bounds: Sequence[RecallBound]) -> Mapping[str, float]:
    """Return the numbers of the default rule by name, without those that are not available."""
    values = {
        "objective_score": baseline.score,
        "objective_score_low": baseline.score_low,
        "constant_score": baseline.constant_score,
        "lowest_recall_high": bounds[0].high if bounds else math.nan,
    }
    return {name: value for name, value in values.items() if math.isfinite(value)}
