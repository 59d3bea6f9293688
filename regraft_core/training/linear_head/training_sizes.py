"""Whether more images would help: the chosen head, fitted again to parts of the training images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from regraft_core.formats.options.train_head import HeadOptions
from regraft_core.runtime.step_reports import ProgressReporter, log_progress
from regraft_core.training.intervals import difference_interval, wilson_interval
from regraft_core.training.linear_head.head_rows import HeadRows
from regraft_core.training.linear_head.head_selection import SolvedHead, fit_again
from regraft_core.training.linear_head.head_time import HeadTime
from regraft_core.training.linear_head.linear_classifier import Weights
from regraft_core.training.linear_head.row_blocks import Rows

# Parts of the training images that are compared with all of them; each contains those before.
FRACTIONS = (0.25, 0.5, 0.75)
# More values (rows times features) than these are not fitted again: up to here the fits take less
# time than the choice of the head, beyond it minutes.
MAX_VALUES = 1 << 24
# A gain whose interval ends below this is little.
LITTLE = 0.01


@dataclass(frozen=True)
class TrainingSize:
    """A fit to a part of the training images: validation accuracy with its 95% interval.

    `images` counts groups of near duplicates as one, `rows` all views of all images.
    """

    images: int
    rows: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float


@dataclass(frozen=True)
class SizeCurve:
    """The sizes, from few images to all, and the gain from half of the images to all of them.

    The gain is in validation accuracy, with its 95% interval; `validation_images` are its images.
    """

    sizes: list[TrainingSize]
    gain: float
    gain_low: float
    gain_high: float
    validation_images: int

    def sentence(self) -> str:
        """Return what the curve shows about more images."""
        half, whole = self.sizes[FRACTIONS.index(0.5)], self.sizes[-1]
        change = (
            f"from {half.images} to {whole.images} training images, the validation accuracy "
            f"changed by {100 * self.gain:+.1f} points (95% interval {100 * self.gain_low:+.1f} to "
            f"{100 * self.gain_high:+.1f})"
        )
        if self.gain_low > 0:
            return f"More images would probably help: {change}."
        if self.gain_high < 0:
            return f"More images like these would probably not help: {change}."
        if self.gain_high < LITTLE:
            return f"More images would help little: {change}."
        return (
            f"Whether more images would help is not clear from {self.validation_images} validation "
            f"images: {change}."
        )


def measure_sizes(
    solved: SolvedHead, rows: HeadRows, held_out: Sequence[Rows],
    labels: NDArray[np.int32], class_weights: Sequence[float] | None, options: HeadOptions,
    time: HeadTime | None = None,
) -> SizeCurve | None:  # fmt: skip
    """Fit the chosen head to parts of its rows, and compare them on the validation images.

    Returns:
        None if the rows are more than `MAX_VALUES`, no class has two images, or there is no time.
    """
    if not solved.trials:
        return None
    if len(rows) * len(rows.mean) > MAX_VALUES:
        log_progress(
            f"head: no learning curve by the number of images, because {len(rows)} rows of "
            f"{len(rows.mean)} features are more than {MAX_VALUES / 1e6:.1f} million values"
        )
        return None
    fitted = round(sum(FRACTIONS) * len(rows))
    if time is not None and not time.allows(fitted, "the curve by the number of images"):
        return None
    correct, sizes = [], []
    progress = ProgressReporter("head: fits to parts of the images", len(FRACTIONS))
    for fraction in (*FRACTIONS, 1.0):
        weights, part = Weights(solved.kernel, solved.bias), rows
        if fraction < 1:
            part = take_part(rows, fraction, options.seed)
            weights = fit_again(solved, part, class_weights, options)
            progress.advance()
        logits = np.concatenate([weights.logits(one.astype(np.float32)) for one in held_out])
        hits = logits.argmax(axis=1) == labels
        interval = wilson_interval(int(hits.sum()), len(hits))
        images = len(np.unique(part.images))
        sizes.append(TrainingSize(images, len(part), float(hits.mean()), *interval))
        correct.append(hits)
    half, whole = correct[FRACTIONS.index(0.5)], correct[-1]
    wins, losses = int(np.sum(whole & ~half)), int(np.sum(half & ~whole))
    low, high = difference_interval(wins, losses, len(labels))
    return SizeCurve(sizes, (wins - losses) / len(labels), low, high, len(labels))


def take_part(rows: HeadRows, fraction: float, seed: int) -> HeadRows:
    """Return the rows of this fraction of each class's images, at least one of each.

    With the same seed, a smaller fraction is part of a larger one.
    """
    distinct, first = np.unique(rows.images, return_index=True)
    order = np.random.default_rng(seed).permutation(len(distinct))
    labels = rows.labels[first][order]
    kept = np.concatenate(
        [of_class[: max(round(fraction * len(of_class)), 1)]
         for of_class in (order[labels == label] for label in np.unique(labels))]
    )  # fmt: skip
    chosen = np.flatnonzero(np.isin(rows.images, distinct[kept]))
    part = rows.subset(chosen)
    values = part.parts[0].astype(np.float32)
    return replace(part, mean=values.mean(axis=0), variance=values.var(axis=0))
