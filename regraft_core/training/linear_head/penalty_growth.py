"""The penalty and the temperature of a head that was compared on a sample of its rows.

With the same prior for any number of rows, the penalty of their summed loss would not change. But
a linear classifier is only an approximation, so that it stays the same or grows with the rows, and
features differ in how much. Fits of more rows are also less overconfident than those of the sample.
So the chosen members are fitted to nearly all rows, and compared on the others.

In a budget, stronger penalties are compared on some of the rows. These fits show how many rows the
last one has time for, which starts from their solutions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from regraft_core.formats.options.train_head import HeadOptions
from regraft_core.runtime.step_reports import Clock, log_progress
from regraft_core.training.linear_head.chosen_fits import MemberFits
from regraft_core.training.linear_head.head_rows import HeadRows, sample_rows
from regraft_core.training.linear_head.head_time import HeadTime
from regraft_core.training.linear_head.held_out_fits import Trial, make_task
from regraft_core.training.linear_head.held_out_scores import fit_temperature, smoothed_loss
from regraft_core.training.linear_head.linear_classifier import Weights

# How many times as strong penalties are tried; the first that has no lower loss ends the trials.
FACTORS = (1.0, 3.0, 10.0)
# One of so many parts of the rows is held out, or as many rows as the members were compared on.
PARTS = 5
# In a budget, penalties are compared on so many times the rows that the members were compared on.
COMPARED_TIMES = 4
# A fit of fewer times the rows of the one before is not worth its time.
WORTHWHILE = 1.5


@dataclass(frozen=True)
class GrownPenalties:
    """The members with penalties `factor` times those of before.

    They were compared on held-out images: `loss` is the log loss of these, by a fit of `rows` rows.
    `weights` are the last classifier, which may be of more rows, without its `temperature`; further
    fits start from its `solutions`.
    """

    members: list[Trial]
    temperature: float
    factor: float
    rows: int
    loss: float
    solutions: dict[str, Weights]
    weights: Weights


def grow_penalties(
    rows: HeadRows, classes: int, class_weights: Sequence[float] | None, options: HeadOptions,
    members: Sequence[Trial], compared: int, starts: Mapping[str, Weights] | None = None,
) -> GrownPenalties:  # fmt: skip
    """Compare stronger penalties of the members; one that the options give is kept.

    Args:
        rows: all training rows.
        classes: number of classes.
        class_weights: of the classes, or none.
        options: those of the head.
        members: what the head is the mean of.
        compared: how many rows they were compared on, and their penalties are for.
        starts: solutions of logistic regressions of similar rows, by scaling.
    """
    held_out = _hold_out(rows, compared, options)
    kept = rows.subset(np.setdiff1d(np.arange(len(rows)), held_out))
    task = make_task(kept, classes, class_weights, options, compared)
    fits = MemberFits(kept, task, starts)
    judge, best = _Judge.of(rows, held_out), None
    for factor in (1.0,) if options.l2 else FACTORS:
        weights = fits.mean(members, compared * factor)
        temperature, loss = judge.measure(weights)
        if best is not None and loss >= best.loss:
            break
        stronger = [replace(trial, penalty=trial.penalty * factor) for trial in members]
        best = GrownPenalties(
            stronger, temperature, factor, len(kept), loss, dict(fits.solutions), weights
        )
    assert best is not None
    _log(best, judge)
    return best


def grow_in_time(
    rows: HeadRows, classes: int, class_weights: Sequence[float] | None, options: HeadOptions,
    members: Sequence[Trial], compared: int, starts: Mapping[str, Weights], time: HeadTime,
) -> GrownPenalties:  # fmt: skip
    """Compare penalties on some rows, and fit as many as there is time for with the best.

    The result has the classifier of this fit. It is that of all rows if there is time, without
    those that the penalties were compared on if the rows are many.

    Args:
        rows: as `grow_penalties`, like all others.
        classes: number of classes.
        class_weights: of the classes, or none.
        options: those of the head.
        members: what the head is the mean of.
        compared: how many rows they were compared on.
        starts: solutions of logistic regressions of similar rows, by scaling.
        time: of the head, which learns the speed of fits.
    """
    some = sample_rows(rows.images, COMPARED_TIMES * compared, options.seed)
    part, clock = rows.subset(some), Clock()
    grown = grow_penalties(part, classes, class_weights, options, members, compared, starts)
    tried = min(FACTORS.index(grown.factor) + 2, len(FACTORS)) if not options.l2 else 1
    time.measure(grown.rows, clock.seconds / tried)
    held_out, judge = np.empty(0, np.int64), None
    if len(some) < len(rows):
        inside = _hold_out(part, compared, options)
        held_out, judge = some[inside], _Judge.of(part, inside)
    others = np.setdiff1d(np.arange(len(rows)), held_out)
    count = min(time.affordable_rows(), len(others))
    if count < min(WORTHWHILE * grown.rows, len(others)):
        time.skipped.append(f"the fit of more than {grown.rows} of {len(rows)} rows")
        return grown
    kept = rows.subset(others[sample_rows(rows.images[others], count, options.seed)])
    if len(kept) < len(others):
        time.skipped.append(f"the fit of more than {len(kept)} of {len(rows)} rows")
    task, clock = make_task(kept, classes, class_weights, options, compared), Clock()
    fits = MemberFits(kept, task, grown.solutions)
    weights = fits.mean(grown.members, compared)
    time.measure(len(kept), clock.seconds)
    grown = replace(grown, weights=weights, solutions=dict(fits.solutions))
    if judge is None:
        return grown
    temperature, loss = judge.measure(weights)
    log_progress(f"head: log loss {loss:.4f} of these images by a fit of {len(kept)} rows")
    return replace(grown, temperature=temperature)


def _hold_out(rows: HeadRows, compared: int, options: HeadOptions) -> NDArray[np.int64]:
    """Return the sorted indices of the rows that penalties are compared on."""
    return sample_rows(rows.images, min(compared, len(rows) // PARTS), options.seed)


@dataclass(frozen=True)
class _Judge:
    """One held-out row of each image: features float32 [n, width] and labels [n]."""

    features: NDArray[np.float32]
    labels: NDArray[np.int32]

    @classmethod
    def of(cls, rows: HeadRows, held_out: NDArray[np.int64]) -> _Judge:
        first = held_out[np.sort(np.unique(rows.images[held_out], return_index=True)[1])]
        return cls(rows.take(first).astype(np.float32), rows.labels[first])

    def measure(self, weights: Weights) -> tuple[float, float]:
        """Return the best temperature and the log loss with it."""
        logits = weights.logits(self.features)
        temperature = fit_temperature(logits, self.labels)
        return temperature, smoothed_loss(logits / temperature, self.labels)


def _log(grown: GrownPenalties, judge: _Judge) -> None:
    log_progress(
        f"head: {grown.factor:g} times the penalties, log loss {grown.loss:.4f} of "
        f"{len(judge.labels)} images by a fit of {grown.rows} rows"
    )
