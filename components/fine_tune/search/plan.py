"""Which training of a search goes on, and for how long: by its gain at the end of the time.

The loss of a training falls about linearly with the logarithm of its steps, so the last two results
show how far below the head's it will be with all steps that there is time for. One result does not:
a training from a solved head is often worse than the head first, the more so the more layers it
changes, and better than all others later. So each part and rate has two results, the second with a
multiple of the steps, before they are compared. Then the one with the highest expected gain goes on
with a multiple of its steps, so most of the time is spent on the last training: successive halving
(Jamieson and Talwalkar, 2016) without fixed rounds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

# A training goes on with so many times the steps that it has.
GROWTH = 3
# A training is not expected to lower the loss below this fraction of what remains.
MIN_REMAINING = 0.5
# Fewer steps than this fraction of those before are not worth a new schedule.
WORTHWHILE = 0.5
# An expected gain of less than this fraction of the head's loss is not worth a training.
LEAST_GAIN = 1e-3
# All second results together may take this fraction of the time that is left.
SECOND_FRACTION = 0.5


@dataclass
class Series:
    """Trainings of a part: each from the weights of the one before, or all from the head.

    Those from the head have one rate and more and more steps. `learning_rate` and `views` are those
    of the next training, and `first` the steps of the weights that it continues, 0 for the head.
    `points` are (steps, gain): all steps of the weights, and how far the loss is below the head's.
    `most_steps` limits a training from the head. `end` says why it does not go on, and is empty
    while it does.
    """

    part: str
    learning_rate: float
    step_s: float
    measure_s: float
    points: list[tuple[int, float]] = field(default_factory=list)
    end: str = ""
    views: str = ""
    first: int = 0
    most_steps: int = 1 << 62

    @property
    def steps(self) -> int:
        """The steps of the last result."""
        return self.points[-1][0] if self.points else 0

    @property
    def gain(self) -> float:
        """How far the loss of the last result is below the head's."""
        return self.points[-1][1] if self.points else 0.0

    def most(self, left_s: float) -> int:
        """Return the steps that fit in the time; 0 if they are too few to be worthwhile."""
        steps = int((left_s - self.measure_s) / self.step_s)
        if self.first:
            return steps if steps >= WORTHWHILE * self.steps else 0
        steps = min(steps, self.most_steps)
        return steps if steps >= (1 + WORTHWHILE) * self.steps else 0

    def expected(self, steps: int, head_loss: float) -> float:
        """Return the expected gain of the next training with so many steps.

        Before a single result, the gain is taken as that of the head with fewer steps.
        """
        earlier = self.points[-2] if len(self.points) > 1 else (self.steps / GROWTH, 0.0)
        slope = (self.gain - earlier[1]) / math.log(self.steps / earlier[0])
        grown = self.gain + max(slope, 0.0) * math.log((self.first + steps) / self.steps)
        return min(grown, head_loss - MIN_REMAINING * (head_loss - self.gain))

    def next_steps(self, most: int) -> int:
        """Return the steps of the next training: all that fit if another would be shorter."""
        steps = GROWTH * self.steps
        return most if most < 2 * steps + self.steps else steps


@dataclass(frozen=True)
class Next:
    """The training that goes on, and with how many steps."""

    series: Series
    steps: int


def choose_next(found: Sequence[Series], left_s: float, head_loss: float) -> Next | None:
    """Return the training to go on with; None if none is expected to gain, or fits.

    Args:
        found: those of all parts.
        left_s: the seconds that are left.
        head_loss: validation loss of the head.
    """
    going = [(series, series.most(left_s)) for series in found if not series.end]
    going = [(series, most) for series, most in going if most]
    alone = len(going) == 1 and going[0][0].first > 0
    seconds = [_second(*one) for one in going if len(one[0].points) == 1 and not alone]
    if seconds and sum(each_s for _, each_s in seconds) <= SECOND_FRACTION * left_s:
        return seconds[0][0]
    best = max((series.gain for series in found), default=0.0)
    chosen, highest = None, max(best, 0.0) + LEAST_GAIN * head_loss
    for series, most in going:
        expected = series.expected(most, head_loss)
        if expected > highest:
            chosen, highest = Next(series, series.next_steps(most)), expected
    return chosen


def is_short_of_time(found: Sequence[Series], left_s: float) -> bool:
    """Return whether series can go on, but none fits in the time that is left."""
    going = [series for series in found if not series.end]
    return bool(going) and not any(series.most(left_s) for series in going)


def _second(series: Series, most: int) -> tuple[Next, float]:
    """Return the training for a second result, and its seconds."""
    steps = min(GROWTH * series.steps, most)
    return Next(series, steps), steps * series.step_s + series.measure_s
