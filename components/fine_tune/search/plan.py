"""Which training of a search goes on, and for how long: by its expected gain per second.

Trainings that have lowered the validation loss by g in n steps are expected to lower it by
g * (m / n) ** a in m steps. The exponent a is that of their last two results, and an optimistic one
before. Each time, those with the highest expected gain over the best result per second go on with a
multiple of their steps, so most of the time is spent on the last training: successive halving
(Jamieson and Talwalkar, 2016) without fixed rounds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

# A training goes on with so many times the steps that it has.
GROWTH = 3
PRIOR_EXPONENT = 0.5
# A training is not expected to lower the loss below this fraction of what remains.
MIN_REMAINING = 0.5
# Fewer steps than this fraction of those before are not worth a new schedule.
WORTHWHILE = 0.5


@dataclass
class Series:
    """The trainings of a part, each from the weights of the one before, while they gain.

    `learning_rate` and `views` are those of the next training. `points` are (steps, gain): all
    steps so far, and how far the loss is below the head's. `end` says why it does not go on, and is
    empty while it does.
    """

    part: str
    learning_rate: float
    step_s: float
    measure_s: float
    points: list[tuple[int, float]] = field(default_factory=list)
    end: str = ""
    views: str = ""

    @property
    def steps(self) -> int:
        """All steps of the trainings that gained."""
        return self.points[-1][0] if self.points else 0

    @property
    def gain(self) -> float:
        """How far the loss is below the head's."""
        return self.points[-1][1] if self.points else 0.0

    def most(self, left_s: float) -> int:
        """Return the steps that fit in the time; 0 if they are too few to be worthwhile."""
        steps = int((left_s - self.measure_s) / self.step_s)
        return steps if steps >= WORTHWHILE * self.steps else 0

    @property
    def exponent(self) -> float:
        """The exponent of the gain's growth."""
        if len(self.points) < 2:
            return PRIOR_EXPONENT
        (steps, gain), (more, higher) = self.points[-2:]
        return min(max(math.log(higher / gain) / math.log(more / steps), 0.0), PRIOR_EXPONENT)

    def expected(self, steps: int, head_loss: float) -> float:
        """Return the expected gain after `steps` more."""
        grown = self.gain * ((self.steps + steps) / self.steps) ** self.exponent
        return min(grown, head_loss - MIN_REMAINING * (head_loss - self.gain))


@dataclass(frozen=True)
class Next:
    """The training that goes on, and with how many steps."""

    series: Series
    steps: int


def choose_next(found: Sequence[Series], left_s: float, head_loss: float) -> Next | None:
    """Return the training to go on with; None if none is expected to gain, or fits.

    Args:
        found: one for each part that gained.
        left_s: the seconds that are left.
        head_loss: validation loss of the head.
    """
    best = max((series.gain for series in found), default=0.0)
    chosen, highest = None, 0.0
    for series in found:
        most = 0 if series.end else series.most(left_s)
        if not most:
            continue
        for steps in _horizons(series, most):
            rate = (series.expected(steps, head_loss) - best) / (steps * series.step_s)
            if rate > highest:
                chosen, highest = Next(series, _next_steps(series, most)), rate
    return chosen


def is_short_of_time(found: Sequence[Series], left_s: float) -> bool:
    """Return whether parts can go on, but none fits in the time that is left."""
    going = [series for series in found if not series.end]
    return bool(going) and not any(series.most(left_s) for series in going)


def _horizons(series: Series, most: int) -> list[int]:
    """Return numbers of further steps: after one, two, ... trainings, and all that fit."""
    found, steps = [], GROWTH * series.steps
    while steps < most:
        found.append(steps)
        steps += GROWTH * (series.steps + steps)
    return [*found, most]


def _next_steps(series: Series, most: int) -> int:
    """Return the steps of the next training: all that are left if another would be shorter."""
    steps = GROWTH * series.steps
    return most if most < 2 * steps + series.steps else steps
