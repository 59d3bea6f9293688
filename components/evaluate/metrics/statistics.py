"""Confidence intervals and paired tests of accuracies, without TensorFlow."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import betabinom

BOOTSTRAP_ROUNDS = 10_000


def binomial_tail(at_least: int, trials: int) -> float:
    """Return P(X >= at_least) for X ~ Binomial(trials, 1/2), exact up to the last rounding."""
    # Each term is computed from the previous one, in integers, so that no error accumulates.
    term = math.comb(trials, at_least)
    total = 0
    for successes in range(at_least, trials + 1):
        total += term
        term = term * (trials - successes) // (successes + 1)
    return total / (1 << trials)


def shortfall_probability(hits: int, images: int, held_out_hits: int, held_out: int) -> float:
    """Return the probability of at most `hits` if the images are like those of the threshold.

    A threshold that exactly `held_out_hits` of `held_out` images reach is reached by new ones with
    a probability that has a beta distribution over the choice of the held-out images, so the number
    of new images that reach it has a beta-binomial one (Vovk 2012). NaN without new images.
    """
    if not images:
        return math.nan
    misses = held_out - held_out_hits + 1
    return float(betabinom.cdf(hits, images, max(held_out_hits, 1), misses))


@dataclass(frozen=True)
class Comparison:
    """Comparison of a candidate with the champion on the same images.

    `wins` counts the images that only the candidate predicts correctly, `losses` those that only
    the champion does. The p-values are those of McNemar's exact test: `p_worse` is the probability
    of at least so many losses, `p_better` of at least so many wins, if neither model is better.
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

    @property
    def summary(self) -> str:
        """The difference with its interval, and what it was measured on."""
        return (
            f"{self.difference:+.4f} ({self.difference_low:+.4f} to {self.difference_high:+.4f}) "
            f"against {self.name} on {self.images} images, {self.wins} wins, {self.losses} losses"
        )

    def drops_at_most(self, margin: float) -> bool:
        """Return whether the accuracy is lower by at most `margin`.

        It is counted in images, so that a drop equal to the margin passes despite rounding.
        """
        return self.losses - self.wins <= margin * self.images + 1e-9


def compare(
    correct: NDArray[np.bool_], champion_correct: NDArray[np.bool_], name: str, seed: int = 0
) -> Comparison:
    """Compare two models image by image: McNemar's exact test and a bootstrap interval.

    Args:
        correct: bool [n], whether the candidate predicts each image correctly.
        champion_correct: bool [n], the same for the champion, in the same order.
        name: the champion's name, for the verdict.
        seed: of the bootstrap.
    """
    correct, champion_correct = np.asarray(correct, bool), np.asarray(champion_correct, bool)
    if correct.shape != champion_correct.shape or correct.ndim != 1:
        raise ValueError(
            f"expected equal lengths, got {correct.shape} and {champion_correct.shape}"
        )
    images = len(correct)
    wins = int(np.sum(correct & ~champion_correct))
    losses = int(np.sum(~correct & champion_correct))
    different = wins + losses
    low, high = bootstrap_difference(wins, losses, images, seed=seed)
    return Comparison(
        name=name,
        images=images,
        accuracy=float(correct.mean()) if images else math.nan,
        champion_accuracy=float(champion_correct.mean()) if images else math.nan,
        wins=wins,
        losses=losses,
        difference=(wins - losses) / images if images else math.nan,
        difference_low=low,
        difference_high=high,
        p_two_sided=min(1.0, 2 * binomial_tail(max(wins, losses), different)),
        p_worse=binomial_tail(losses, different),
        p_better=binomial_tail(wins, different),
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

    An image counts +1 (win), -1 (loss) or 0, so the counts of a resample of the images have a
    multinomial distribution; the images themselves are not needed.
    """
    if images == 0:
        return math.nan, math.nan
    fractions = [wins / images, losses / images, (images - wins - losses) / images]
    counts = np.random.default_rng(seed).multinomial(images, fractions, size=rounds)
    differences = (counts[:, 0] - counts[:, 1]) / images
    tail = (1 - confidence) / 2
    low, high = np.quantile(differences, [tail, 1 - tail])
    return float(low), float(high)
