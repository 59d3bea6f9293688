"""The learning rates with which a search trains a part from the head."""

from __future__ import annotations

from collections.abc import Sequence

from components.fine_tune.rate_search import LEARNING_RATES
from components.fine_tune.search.trials import Trial


def first_rates(trials: Sequence[Trial], earlier: Sequence[str]) -> list[float]:
    """Return the rates of a part's first trainings: all, or the best of earlier parts and another.

    Parts with more layers rather need a lower rate than a higher one.

    Args:
        trials: all trainings so far.
        earlier: the parts with fewer layers.
    """
    gained = [trial for trial in first_trials(trials) if trial.part in earlier and trial.gained]
    if not gained:
        return list(LEARNING_RATES)
    rate = max(gained, key=lambda trial: trial.gain).learning_rate
    if rate not in LEARNING_RATES:
        return [rate]
    index = LEARNING_RATES.index(rate)
    return [rate, LEARNING_RATES[index - 1 if index else 1]]


def first_trials(trials: Sequence[Trial]) -> list[Trial]:
    """Return the first trainings of all parts, without the longer ones that start again."""
    steps: dict[str, int] = {}
    for trial in trials:
        steps.setdefault(trial.part, trial.steps)
    return [trial for trial in trials if not trial.first and trial.steps <= steps[trial.part]]
