"""The learning rate of fine-tuning: short trainings with a few, of which the best one goes on.

One round of successive halving (Jamieson and Talwalkar, 2016), in which a third remains. If none of
the short trainings gains more than a standard error over the head, the search is over.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regraft_core.runtime.step_reports import Clock, log_progress
from regraft_core.training.loop import DivergedError
from regraft_core.training.paired_losses import PairedLosses, compare_losses

# For networks with normalization, fine-tuning rarely improves below these, and diverges above.
LEARNING_RATES = (4e-5, 2e-4, 1e-3)
# All short trainings together have a third of the epochs of the long one.
ROUND_FRACTION = 1 / 9


@dataclass(frozen=True)
class RateTrial:
    """A short training: its validation losses minus the head's; None if its loss diverged."""

    learning_rate: float
    against_head: PairedLosses | None

    @property
    def difference(self) -> float:
        """The difference of the mean losses, inf if the loss diverged."""
        return self.against_head.difference if self.against_head else math.inf


@dataclass(frozen=True)
class RateSearch:
    """The short trainings, of `epochs` each, and the seconds that they took together."""

    trials: Sequence[RateTrial]
    epochs: int
    seconds: float

    @property
    def best(self) -> RateTrial:
        """The trial with the lowest validation loss."""
        return min(self.trials, key=lambda trial: trial.difference)

    @property
    def promising(self) -> bool:
        """Whether the best trial has gained enough over the head to train on."""
        return self.best.against_head is not None and self.best.against_head.promising

    def sentence(self) -> str:
        """Return the choice in a sentence."""
        epochs = "an epoch" if self.epochs == 1 else f"{self.epochs} epochs"
        found = ", ".join(
            f"{trial.learning_rate:.0e} {trial.against_head or 'diverged'}" for trial in self.trials
        )
        end = (
            f"{self.best.learning_rate:.0e} was chosen"
            if self.promising
            else "no gain over the head, so the training ended there"
        )
        return (
            f"Validation loss minus the head's after {epochs} with a learning rate of {found}: "
            f"{end} ({self.seconds:.0f} s)."
        )

    def measurements(self) -> dict[str, Any]:
        """Return the search for the manifest."""
        trials = [
            {"learning_rate": trial.learning_rate}
            | (asdict(trial.against_head) if trial.against_head else {"diverged": True})
            for trial in self.trials
        ]
        return {"trials": trials, "epochs": self.epochs, "seconds": self.seconds}


def round_epochs(epochs: int) -> int:
    """Return the epochs of a short training."""
    return max(round(epochs * ROUND_FRACTION), 1)


def search_rate(
    train: Callable[[float], NDArray[np.floating]], head_losses: NDArray[np.floating], epochs: int
) -> RateSearch:
    """Compare short trainings with the learning rates.

    Args:
        train: trains from the head's weights with a learning rate, for `epochs`; returns the
            validation loss of each image, [n].
        head_losses: validation losses before training, [n].
        epochs: of a short training.
    """
    clock, trials = Clock(), []
    for rate in LEARNING_RATES:
        try:
            found = compare_losses(train(rate), head_losses)
        except DivergedError as error:
            log_progress(str(error))
            found = None
        trials.append(RateTrial(rate, found))
    return RateSearch(trials, epochs, clock.seconds)
