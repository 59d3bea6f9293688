"""Intervals and paired tests of any score of images, by the bootstrap over images.

A resample is a number of copies of each image, so a score of resamples is one of weighted images,
and all of them are computed together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Score = Callable[[Floats], Mapping[str, Floats]]
"""From weights of images, float32 [n, rounds], to scores by name, float64 [rounds]."""

ROUNDS = 1000
# Weights of one batch of resamples: 4 MB, which a cache may hold.
_MAX_WEIGHTS = 1 << 20


def resampled_weights(images: int, seed: int, rounds: int = ROUNDS) -> Iterator[Floats]:
    """Yield how often each image is in a resample, float32 [images, some rounds]."""
    generator = np.random.default_rng(seed)
    batch = max(_MAX_WEIGHTS // max(images, 1), 1)
    for start in range(0, rounds, batch):
        count = min(batch, rounds - start)
        drawn = generator.integers(0, images, (images, count)) * count + np.arange(count)
        counts = np.bincount(drawn.ravel(), minlength=images * count)
        yield counts.reshape(images, count).astype(np.float32)


def bootstrap(score: Score, images: int, seed: int, rounds: int = ROUNDS) -> dict[str, Floats]:
    """Return the scores of resamples of the images by name, float64 [rounds]."""
    found = [score(weights) for weights in resampled_weights(images, seed, rounds)]
    return {name: np.concatenate([one[name] for one in found]) for name in found[0]}


def percentile_interval(scores: Floats, confidence: float = 0.95) -> tuple[float, float]:
    """Return the percentile interval of a score (Efron and Tibshirani 1993, chapter 13).

    Resamples in which the score is not defined (NaN) do not count; NaN if it is in none.
    """
    known = scores[np.isfinite(scores)]
    if not len(known):
        return math.nan, math.nan
    tail = (1 - confidence) / 2
    low, high = np.quantile(known, [tail, 1 - tail])
    return float(low), float(high)


def fraction_beyond(differences: Floats) -> tuple[float, float]:
    """Return the p-values of "not worse" and "not better" from differences of resamples.

    They are the levels at which the percentile bounds of the difference reach 0: the fraction of
    resamples whose difference is 0 or more, and 0 or less. The observed sample is one of them, so
    no p-value is 0 (Davison and Hinkley 1997, chapter 4).
    """
    known = differences[np.isfinite(differences)]
    not_below, not_above = int(np.sum(known >= 0)), int(np.sum(known <= 0))
    return (not_below + 1) / (len(known) + 1), (not_above + 1) / (len(known) + 1)
