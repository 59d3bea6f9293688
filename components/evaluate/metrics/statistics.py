"""What a test split of a given size can tell: intervals and paired tests, without TensorFlow."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

BOOTSTRAP_ROUNDS = 10_000


def wilson_interval(right: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval for a share (Wilson, 1927).

    It stays within 0..1 and is sensible at 0 and 100 % and for a single image, where the
    textbook interval has no width.

    Returns:
        (low, high), or (nan, nan) when `total` is 0: nothing is known.
    """
    if not 0 <= right <= total:
        raise ValueError(f"expected 0 <= right <= total, got {right} of {total}")
    if total == 0:
        return math.nan, math.nan
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share, spread = right / total, z * z / total
    center = (share + spread / 2) / (1 + spread)
    half = math.sqrt(share * (1 - share) * spread + spread * spread / 4) / (1 + spread)
    low = 0.0 if right == 0 else center - half
    high = 1.0 if right == total else center + half
    return low, high


def binomial_tail(at_least: int, trials: int) -> float:
    """Return P(X >= at_least) for X ~ Binomial(trials, 1/2), exact up to the last rounding."""
    if at_least <= 0:
        return 1.0
    # Each term follows from the one before it, in integers, so that no error adds up.
    term = math.comb(trials, at_least) if at_least <= trials else 0
    total = 0
    for successes in range(at_least, trials + 1):
        total += term
        term = term * (trials - successes) // (successes + 1)
    return total / (1 << trials)


@dataclass(frozen=True)
class Comparison:
    """A candidate against the champion on the same images.

    `wins` are the images that only the candidate has right, `losses` those that only the
    champion has. The p-values are McNemar's exact ones: `p_worse` of seeing so many losses,
    `p_better` so many wins, if neither model were better.
    """

    name: str
    images: int
    accuracy: float
    champion_accuracy: float
    wins: int
    losses: int
    difference: float
    difference_low: float
    difference_high: float
    p_two_sided: float
    p_worse: float
    p_better: float


def compare(
    right: NDArray[np.bool_], champion_right: NDArray[np.bool_], name: str, seed: int = 0
) -> Comparison:
    """Compare two models image by image: exact McNemar test and a bootstrap interval.

    Args:
        right: bool [n], which images the candidate has right.
        champion_right: bool [n], the same images in the same order.
        name: the champion's, for the verdict.
        seed: of the bootstrap.
    """
    right, champion_right = np.asarray(right, bool), np.asarray(champion_right, bool)
    if right.shape != champion_right.shape or right.ndim != 1:
        raise ValueError(f"expected equal lengths, got {right.shape} and {champion_right.shape}")
    images = len(right)
    wins = int(np.sum(right & ~champion_right))
    losses = int(np.sum(~right & champion_right))
    unlike = wins + losses
    low, high = bootstrap_difference(wins, losses, images, seed=seed)
    return Comparison(
        name=name,
        images=images,
        accuracy=float(right.mean()) if images else math.nan,
        champion_accuracy=float(champion_right.mean()) if images else math.nan,
        wins=wins,
        losses=losses,
        difference=(wins - losses) / images if images else math.nan,
        difference_low=low,
        difference_high=high,
        p_two_sided=min(1.0, 2 * binomial_tail(max(wins, losses), unlike)),
        p_worse=binomial_tail(losses, unlike),
        p_better=binomial_tail(wins, unlike),
    )


def bootstrap_difference(
    wins: int,
    losses: int,
    images: int,
    *,
    confidence: float = 0.95,
    rounds: int = BOOTSTRAP_ROUNDS,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of the difference of two paired accuracies.

    An image counts +1 (win), -1 (loss) or 0, so a resample of the images is a draw from a
    multinomial distribution; the images themselves are not needed.
    """
    if images == 0:
        return math.nan, math.nan
    shares = [wins / images, losses / images, (images - wins - losses) / images]
    drawn = np.random.default_rng(seed).multinomial(images, shares, size=rounds)
    differences = (drawn[:, 0] - drawn[:, 1]) / images
    tail = (1 - confidence) / 2
    low, high = np.quantile(differences, [tail, 1 - tail])
    return float(low), float(high)
