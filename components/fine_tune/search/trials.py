"""The trainings of a search: what each found, and the series that they form."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from components.fine_tune.rate_search import LEARNING_RATES
from components.fine_tune.search.plan import Series
from regraft_core.formats.manifests.model import Epoch
from regraft_core.training.paired_losses import PairedLosses

# A training is far worse than the head if its loss is higher by this fraction of the head's. Less
# is usual: a solved head suits only the features that it was solved for.
FAR_WORSE = 0.5
HEADING = "trained | learning rate | steps | epochs | seconds | validation loss minus the head's"


@dataclass(frozen=True)
class Trial:
    """One training: its part, its length, and the validation losses minus those of the head.

    `first` are the steps of the trainings that it continues, 0 from the head. `against_head` is
    None if the loss diverged. `gained` means that the loss is lower than before by more than a
    standard error. `views` name the augmentation of its images, and are empty without one.
    """

    part: str
    learning_rate: float
    first: int
    steps: int
    epochs: float
    seconds: float
    step_s: float
    measure_s: float
    gained: bool
    against_head: PairedLosses | None
    history: list[Epoch]
    views: str = ""

    @property
    def gain(self) -> float:
        """How far its loss is below the head's."""
        return -self.against_head.difference if self.against_head else -math.inf

    @property
    def what(self) -> str:
        """Its part, and the augmentation of its images."""
        return f"{self.part} on {self.views}" if self.views else self.part

    def row(self) -> str:
        """Return the line of the table."""
        steps = f"{self.first}+{self.steps}" if self.first else str(self.steps)
        found = str(self.against_head) if self.against_head else "diverged"
        cells = (
            self.what, f"{self.learning_rate:.0e}", steps, f"{self.epochs:.2f}",
            f"{self.seconds:.0f}", found,
        )  # fmt: skip
        return " | ".join(cells)

    def measurements(self) -> dict[str, Any]:
        """Return the training for the manifest."""
        values = {name: value for name, value in vars(self).items() if name != "history"}
        return values | {"against_head": asdict(self.against_head) if self.against_head else None}

    def as_json(self) -> dict[str, Any]:
        """Return the training for the work folder."""
        return self.measurements() | {"history": [epoch.model_dump() for epoch in self.history]}

    @classmethod
    def of_json(cls, values: dict[str, Any]) -> Trial:
        """Return the training that `as_json` returned."""
        found = values["against_head"]
        compared = PairedLosses(**found) if found else None
        history = [Epoch(**epoch) for epoch in values["history"]]
        return cls(**values | {"history": history, "against_head": compared})


def series_of(
    part: str, trials: Sequence[Trial], head_loss: float, views: Sequence[str] = ("",),
    most_steps: int = 1 << 62,
) -> list[Series]:  # fmt: skip
    """Return the series of a part: what continues its best weights, and others from the head.

    Those from the head have one learning rate each. A rate ends if it is far worse than the head,
    or worse than a higher one: with more steps, it would be further behind.

    Args:
        part: the part.
        trials: all trainings so far.
        head_loss: validation loss of the head.
        views: the augmentations of images that the part can train with.
        most_steps: the longest training from the head.
    """
    own = [trial for trial in trials if trial.part == part]
    chain = trainings_of(part, trials)
    by_rate: dict[float, dict[int, float]] = {}
    for trial in own:
        if not trial.first:
            by_rate.setdefault(trial.learning_rate, {})[trial.steps] = trial.gain
    found = []
    if chain:
        series = _continuing(chain, own, views)
        before = by_rate.pop(chain[0].learning_rate)
        shorter = [(steps, gain) for steps, gain in before.items() if steps < chain[0].steps]
        series.points[:0] = sorted(shorter)
        found.append(series)
    for rate, gains in by_rate.items():
        series = Series(part, rate, own[-1].step_s, own[-1].measure_s, sorted(gains.items()),
                        views=views[0], most_steps=most_steps)  # fmt: skip
        higher = [dict(gains) for other, gains in by_rate.items() if other > rate]
        higher += [dict(found[0].points)] if chain and chain[0].learning_rate > rate else []
        if min(gains.values()) == -math.inf:
            series.end = "diverged"
        elif series.gain < -FAR_WORSE * head_loss:
            series.end = "far worse than the head"
        elif any(_is_behind(gains, others) for others in higher):
            series.end = "worse than a higher learning rate"
        elif series.steps >= most_steps:
            series.end = "no gain over the head"
        found.append(series)
    return found


def trainings_of(part: str, trials: Sequence[Trial]) -> list[Trial]:
    """Return the trainings that led to the best weights of a part, one continued by the next."""
    chain: list[Trial] = []
    for trial in trials:
        if trial.part == part and trial.gained and (not chain or trial.gain > chain[-1].gain):
            chain = [*chain, trial] if trial.first else [trial]
    return chain


def _continuing(chain: Sequence[Trial], own: Sequence[Trial], views: Sequence[str]) -> Series:
    """Return the series of the best weights.

    After a training without a gain, the next one has other views, or else a lower learning rate.
    """
    last = chain[-1]
    failed = [(trial.learning_rate, trial.views) for trial in own[own.index(last) + 1 :]
              if trial.first]  # fmt: skip
    ways = [way for way in _ways(last, views) if way not in failed]
    rate, name = ways[0] if ways else (last.learning_rate, last.views)
    points = [(trial.first + trial.steps, trial.gain) for trial in chain]
    return Series(
        last.part, rate, own[-1].step_s, own[-1].measure_s, points,
        "" if ways else "no further gain", name, first=points[-1][0],
    )  # fmt: skip


def _is_behind(gains: Mapping[int, float], others: Mapping[int, float]) -> bool:
    """Return whether the gain is lower than another one with the same steps, the most of both."""
    common = max(gains.keys() & others.keys(), default=None)
    return common is not None and gains[common] < others[common]


def _ways(trial: Trial, views: Sequence[str]) -> list[tuple[float, str]]:
    """Return the rates and views to go on with from a training, the first ones its own."""
    rate = trial.learning_rate
    others = [(rate, name) for name in views if name != trial.views]
    lower = [one for one in LEARNING_RATES[::-1] if one < rate] if rate in LEARNING_RATES else []
    return [(rate, trial.views), *others, *((one, trial.views) for one in lower)]
