"""The trainings of a search: what each found, and the series that they form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from components.fine_tune.rate_search import LEARNING_RATES
from components.fine_tune.search.plan import Series
from regraft_core.formats.manifests.model import Epoch
from regraft_core.training.paired_losses import PairedLosses

# A training is far worse than the head if its loss is higher by so many standard errors.
FAR_WORSE = 2.0
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
        return -self.against_head.difference if self.against_head else float("-inf")

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
    part: str, trials: Sequence[Trial], views: Sequence[str] = ("",), most_steps: int = 1 << 62
) -> Series | None:
    """Return the series of a part: its best training from the head and what continued it, or None.

    If none from the head gained, it has those at the rate of the best one: a longer one may gain.
    After a training that continued others without a gain, the next one has other views, or else a
    lower learning rate.

    Args:
        part: the part.
        trials: all trainings so far.
        views: the augmentations of images that the part can train with.
        most_steps: the longest training from the head.
    """
    own = [trial for trial in trials if trial.part == part]
    probes = [trial for trial in own if not trial.first]
    if not probes:
        return None
    best = max(probes, key=lambda trial: (trial.gained, trial.steps, trial.gain))
    if best.gained:
        best = max((t for t in probes if t.gained), key=lambda trial: trial.gain)
    series = Series(
        part, best.learning_rate, own[-1].step_s, own[-1].measure_s, views=best.views,
        most_steps=most_steps,
    )  # fmt: skip
    series.points = [
        (trial.steps, trial.gain) for trial in probes
        if trial.learning_rate == best.learning_rate and trial.steps <= best.steps
        and trial.against_head
    ]  # fmt: skip
    if not best.gained:
        if _is_far_worse(best) or best.steps >= most_steps:
            series.end = "no gain over the head"
        return series
    series.first = best.steps
    ways = _ways(best, views)
    for trial in own:
        if trial.first and trial.gained:
            series.first = trial.first + trial.steps
            series.points.append((series.first, trial.gain))
            ways = _ways(trial, views)
        elif trial.first:
            ways = [way for way in ways if way != (trial.learning_rate, trial.views)]
    if ways:
        series.learning_rate, series.views = ways[0]
    else:
        series.end = "no further gain"
    return series


def trainings_of(series: Series, trials: Sequence[Trial]) -> list[Trial]:
    """Return the trainings whose weights a series has, one continued by the next."""
    gained = [trial for trial in trials if trial.part == series.part and trial.gained]
    first = max((trial for trial in gained if not trial.first), key=lambda trial: trial.gain)
    return [first, *(trial for trial in gained if trial.first)]


def _is_far_worse(trial: Trial) -> bool:
    found = trial.against_head
    return found is None or found.difference > FAR_WORSE * found.standard_error


def _ways(trial: Trial, views: Sequence[str]) -> list[tuple[float, str]]:
    """Return the rates and views to go on with from a training, the first ones its own."""
    rate = trial.learning_rate
    others = [(rate, name) for name in views if name != trial.views]
    lower = [one for one in LEARNING_RATES[::-1] if one < rate] if rate in LEARNING_RATES else []
    return [(rate, trial.views), *others, *((one, trial.views) for one in lower)]
