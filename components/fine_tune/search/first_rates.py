"""The learning rates with which a search trains a part from the head."""

from __future__ import annotations

from collections.abc import Sequence

from components.fine_tune.rate_search import LEARNING_RATES
from components.fine_tune.search.plan import GROWTH
from components.fine_tune.search.trials import Trial

# A training is far worse than the head if its loss is higher by so many standard errors.
FAR_WORSE = 2.0


def first_rates(trials: Sequence[Trial], earlier: Sequence[str]) -> list[float]:
    """Return the rates of a part's first trainings: all, or the best of earlier parts and another.

    Parts with more layers rather need a lower rate than a higher one.

    Args:
        trials: all trainings so far.
        earlier: the parts with fewer layers.
    """
    gained = [t for t in trials if t.part in earlier and t.scale == 1 and t.gained]
    if not gained:
        return list(LEARNING_RATES)
    rate = max(gained, key=lambda trial: trial.gain).learning_rate
    if rate not in LEARNING_RATES:
        return [rate]
    index = LEARNING_RATES.index(rate)
    return [rate, LEARNING_RATES[index - 1 if index else 1]]


def later_rates(trials: Sequence[Trial], part: str, scale: int) -> list[float]:
    """Return the rates of longer trainings from the head, if shorter ones had no gain.

    A solved head is better than any other one on the same features, so trainings of few steps can
    be worse than the head even if longer ones are better.

    Args:
        trials: all trainings so far.
        part: the part.
        scale: how many times longer they are than the first ones.
    """
    own = [trial for trial in trials if trial.part == part and trial.scale]
    if any(trial.gained and trial.scale < scale for trial in own):
        return []
    before = [trial for trial in own if trial.scale * GROWTH == scale and trial.against_head]
    return [trial.learning_rate for trial in before if not _is_far_worse(trial)]


def _is_far_worse(trial: Trial) -> bool:
    found = trial.against_head
    return found is None or found.difference > FAR_WORSE * found.standard_error
