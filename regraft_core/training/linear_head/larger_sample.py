"""The penalty and the temperature of a head that was compared on a sample of its rows.

With the same prior for any number of rows, the penalty of their summed loss would not change. But
a linear classifier is only near to the truth, so that more rows need a stronger one, and features
differ in how much. The fits of more rows are also less overconfident than those of the sample. So
the chosen members are fitted to a larger sample, and compared on rows that they did not see.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from regraft_core.formats.options.train_head import HeadOptions
from regraft_core.runtime.step_reports import log_progress
from regraft_core.training.linear_head.chosen_fits import MemberFits
from regraft_core.training.linear_head.head_rows import HeadRows, deal_folds, sample_rows
from regraft_core.training.linear_head.held_out_fits import Trial, make_task
from regraft_core.training.linear_head.held_out_scores import fit_temperature, smoothed_loss

# The larger sample has this many times the rows of the smaller one; one of so many parts of it is
# held out.
TIMES, PARTS = 8, 5
# How many times as strong penalties are tried; the first that has no lower loss ends the trials.
FACTORS = (1.0, 3.0, 10.0)


@dataclass(frozen=True)
class LargerSample:
    """The members with their penalties, for as many rows as before, and their temperature.

    The penalties are `factor` times those of before. `loss` is the log loss of the held-out images
    by a fit of `rows` rows.
    """

    members: list[Trial]
    temperature: float
    factor: float
    rows: int
    loss: float


def compare_factors(
    rows: HeadRows, classes: int, class_weights: Sequence[float] | None, options: HeadOptions,
    members: Sequence[Trial], compared: int,
) -> LargerSample:  # fmt: skip
    """Compare stronger penalties of the members on a larger sample; a given penalty is kept.

    Args:
        rows: all training rows.
        classes: number of classes.
        class_weights: of the classes, or none.
        options: those of the head.
        members: what the head is the mean of.
        compared: how many rows they were compared on.
    """
    sample = sample_rows(rows.images, TIMES * compared, options.seed)
    held_out = deal_folds(rows.labels[sample], rows.images[sample], PARTS, options.seed) == 0
    kept, others = rows.subset(sample[~held_out]), rows.subset(sample[held_out])
    fits = MemberFits(kept, make_task(kept, classes, class_weights, options, compared))
    first = np.sort(np.unique(others.images, return_index=True)[1])
    labels, features = others.labels[first], others.take(first).astype(np.float32)
    best: LargerSample | None = None
    for factor in (1.0,) if options.l2 else FACTORS:
        logits = fits.mean(members, compared * factor).logits(features)
        temperature = fit_temperature(logits, labels)
        loss = smoothed_loss(logits / temperature, labels)
        if best is not None and loss >= best.loss:
            break
        stronger = [replace(trial, penalty=trial.penalty * factor) for trial in members]
        best = LargerSample(stronger, temperature, factor, len(kept), loss)
    assert best is not None
    log_progress(
        f"head: penalties times {best.factor:g}, log loss {best.loss:.4f} of {len(labels)} images "
        f"by a fit of {best.rows} rows"
    )
    return best
