"""The penalty and the temperature of a head that was compared on a sample of its rows.

With the same prior for any number of rows, the penalty of their summed loss would not change. But
a linear classifier is only an approximation, so that it stays the same or grows with the rows, and
features differ in how much. Fits of more rows are also less overconfident than those of the sample.
So the chosen members are fitted to nearly all rows, and compared on the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from regraft_core.formats.options.train_head import HeadOptions
from regraft_core.runtime.step_reports import log_progress
from regraft_core.training.linear_head.chosen_fits import MemberFits
from regraft_core.training.linear_head.head_rows import HeadRows, sample_rows
from regraft_core.training.linear_head.held_out_fits import Trial, make_task
from regraft_core.training.linear_head.held_out_scores import fit_temperature, smoothed_loss
from regraft_core.training.linear_head.linear_classifier import Weights

# How many times as strong penalties are tried; the first that has no lower loss ends the trials.
FACTORS = (1.0, 3.0, 10.0)
# One of so many parts of the rows is held out, or as many rows as the members were compared on.
PARTS = 5


@dataclass(frozen=True)
class GrownPenalties:
    """The members with penalties `factor` times those of before, and the temperature of their mean.

    `loss` is the log loss of the held-out images, by a fit of `rows` rows. The fits of all rows
    start from the `solutions` of these.
    """

    members: list[Trial]
    temperature: float
    factor: float
    rows: int
    loss: float
    solutions: dict[str, Weights]


def grow_penalties(
    rows: HeadRows, classes: int, class_weights: Sequence[float] | None, options: HeadOptions,
    members: Sequence[Trial], compared: int,
) -> GrownPenalties:  # fmt: skip
    """Compare stronger penalties of the members; one that the options give is kept.

    Args:
        rows: all training rows.
        classes: number of classes.
        class_weights: of the classes, or none.
        options: those of the head.
        members: what the head is the mean of.
        compared: how many rows they were compared on, and their penalties are for.
    """
    held_out = sample_rows(rows.images, min(compared, len(rows) // PARTS), options.seed)
    kept = rows.subset(np.setdiff1d(np.arange(len(rows)), held_out))
    fits = MemberFits(kept, make_task(kept, classes, class_weights, options, compared))
    first = held_out[np.sort(np.unique(rows.images[held_out], return_index=True)[1])]
    labels, features = rows.labels[first], rows.take(first).astype(np.float32)
    best: GrownPenalties | None = None
    for factor in (1.0,) if options.l2 else FACTORS:
        logits = fits.mean(members, compared * factor).logits(features)
        temperature = fit_temperature(logits, labels)
        loss = smoothed_loss(logits / temperature, labels)
        if best is not None and loss >= best.loss:
            break
        stronger = [replace(trial, penalty=trial.penalty * factor) for trial in members]
        best = GrownPenalties(stronger, temperature, factor, len(kept), loss, dict(fits.solutions))
    assert best is not None
    log_progress(
        f"head: {best.factor:g} times the penalties, log loss {best.loss:.4f} of {len(labels)} "
        f"images by a fit of {best.rows} rows"
    )
    return best
