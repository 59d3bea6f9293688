"""Intervals and tests of any score of images, by the bootstrap over images.

A resample is a number of copies of each image, so a score of resamples is one of weighted images,
and all of them are computed together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from regraft_core.runtime.step_reports import ProgressReporter

Floats = NDArray[np.floating]
Score = Callable[[Floats], Mapping[str, Floats]]
"""From weights of images, float32 [n, rounds], to scores by name, float64 [rounds]."""

ROUNDS = 1000
# Values of one batch of resamples: 4 MB, which a cache may hold.
_MAX_VALUES = 1 << 20
# Beyond this, the score would be outside its corrected 95% interval.
_MAX_DEVIATE = 1.96


def batches_of_rounds(images: int, rounds: int) -> Iterator[int]:
    """Yield numbers of rounds that together are `rounds`, so that each batch is small."""
    batch = max(_MAX_VALUES // max(images, 1), 1)
    for start in range(0, rounds, batch):
        yield min(batch, rounds - start)


def resampled_weights(images: int, seed: int, rounds: int = ROUNDS) -> Iterator[Floats]:
    """Yield how often each image is in a resample, float32 [images, some rounds]."""
    generator = np.random.default_rng(seed)
    for count in batches_of_rounds(images, rounds):
        drawn = generator.integers(0, max(images, 1), (images, count)) * count + np.arange(count)
        counts = np.bincount(drawn.ravel(), minlength=images * count)
        yield counts.reshape(images, count).astype(np.float32)


def bootstrap(score: Score, images: int, seed: int, rounds: int = ROUNDS) -> dict[str, Floats]:
    """Return the scores of resamples of the images by name, float64 [rounds]."""
    progress, found = ProgressReporter("evaluate: resamples of the bootstrap", rounds), []
    for weights in resampled_weights(images, seed, rounds):
        found.append(score(weights))
        progress.advance(weights.shape[1])
    return {name: np.concatenate([one[name] for one in found]) for name in found[0]}


def bootstrap_interval(
    resampled: Floats, score: float, confidence: float = 0.95
) -> tuple[float, float]:
    """Return the bias-corrected percentile interval of a score (Efron 1981).

    The copies of an image in a resample have the same prediction, which makes ranking metrics of
    resamples higher than those of new images; the correction removes this. With many rare labels
    this can exceed the width of the interval, for which the correction has no resamples; then they
    are moved so that their median is the score.

    Args:
        resampled: scores of resamples; undefined ones (NaN) do not count.
        score: that of the images.
        confidence: of the interval.

    Returns:
        (low, high), NaN if the score is in no resample.
    """
    known = resampled[np.isfinite(resampled)]
    if not len(known):
        return math.nan, math.nan
    known, shift = _correct(known, score)
    half = norm.ppf((1 + confidence) / 2)
    low, high = np.quantile(known, norm.cdf([shift - half, shift + half]))
    return float(low), float(high)


def probability_above_zero(resampled: Floats, difference: float) -> float:
    """Return the p-value of "the difference is 0 or more"; 1 minus it is that of "0 or less".

    It is the level at which the upper bound of `bootstrap_interval` reaches 0. NaN if the
    difference is in no resample.
    """
    known = resampled[np.isfinite(resampled)]
    if not len(known):
        return math.nan
    known, shift = _correct(known, difference)
    return float(norm.sf(_deviate(known, 0.0) - shift))


def _correct(resampled: Floats, score: float) -> tuple[Floats, float]:
    """Return resamples, and by how much the normal deviates of their quantiles are corrected."""
    deviate = _deviate(resampled, score)
    if abs(deviate) < _MAX_DEVIATE:
        return resampled, 2 * deviate
    return resampled + (score - np.median(resampled)), 0.0


def _deviate(resampled: Floats, value: float) -> float:
    """Return the normal deviate of the fraction of resamples below a value; it is finite."""
    rounds = len(resampled)
    below = (np.sum(resampled < value) + 0.5 * np.sum(resampled == value)) / rounds
    return float(norm.ppf(np.clip(below, 1 / (rounds + 1), rounds / (rounds + 1))))
