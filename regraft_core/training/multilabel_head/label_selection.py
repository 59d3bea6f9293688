"""Which linear head suits features of images with several labels, by cross-validation.

The head is one logistic regression per label, and all share the features, their scaling and their
principal axes. Ridge regression, which is quick, chooses the levels and the scaling by the Brier
score; then logistic regressions are compared along a path of penalties.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from regraft_core.formats.options.train_head import HeadOptions
from regraft_core.runtime.step_reports import Clock, log_progress
from regraft_core.training.linear_head.head_rows import HeadRows, sample_rows, scalings
from regraft_core.training.linear_head.held_out_fits import PATHS
from regraft_core.training.linear_head.level_screening import screen_levels
from regraft_core.training.linear_head.linear_classifier import Weights
from regraft_core.training.linear_head.logistic_fits import LogisticFits, held_out_regressions
from regraft_core.training.multilabel_head.binary_regressions import BINARY, binary_losses
from regraft_core.training.multilabel_head.label_thresholds import (
    EVEN,
    choose_thresholds,
    f1_scores,
    served_probabilities,
)
from regraft_core.training.multilabel_head.platt_scaling import PlattScaling
from regraft_core.training.stratification import stratify

Floats = NDArray[np.float64]
Labels = NDArray[np.uint8]
DEFAULT_PENALTY = 1e-3
# Heads are compared on samples of this many rows.
SELECTION_ROWS = 3000


@dataclass(frozen=True)
class LabelTrial:
    """A head that was compared on held-out images.

    `loss` is the Brier score of ridge regression, and the log loss of logistic regression, each the
    mean over images and labels. `rows` are those that it was fitted to or held out of.
    """

    levels: str
    scaling: str
    method: str
    penalty: float
    loss: float
    rows: int


@dataclass(frozen=True)
class LabelHead:
    """The chosen head: logits are `features @ kernel + bias`, for unscaled features.

    The scaling of the logits is part of kernel and bias. The penalty is that of `rows` rows.
    `thresholds` are those of the probabilities, by label, and `held_out` maps metrics of the
    held-out images to their values. `held_out_logits` [m, k] and `held_out_labels` [m, k] are those
    of the held-out images if the folds had all rows. Otherwise they are empty, as of
    `linear_head.SolvedHead`.
    """

    kernel: Floats
    bias: Floats
    levels: str
    scaling: str
    penalty: float
    rows: int
    folds: int
    calibration: PlattScaling
    thresholds: list[float]
    trials: list[LabelTrial] = field(default_factory=list)
    held_out: dict[str, float] = field(default_factory=dict)
    held_out_logits: Floats = field(default_factory=lambda: np.empty((0, 0)))
    held_out_labels: Labels = field(default_factory=lambda: np.empty((0, 0), np.uint8))

    @property
    def offset(self) -> Floats:
        """No offset: the thresholds serve the objective."""
        return np.zeros(len(self.bias))

    @property
    def members(self) -> list[LabelTrial]:
        """What the head is made of, as of `linear_head.SolvedHead`."""
        nan = float("nan")
        loss = self.held_out.get("log_loss", nan)
        return [LabelTrial(self.levels, self.scaling, "logistic", self.penalty, loss, self.rows)]


def choose_label_head(candidates: Mapping[str, HeadRows], options: HeadOptions) -> LabelHead:
    """Choose a head by cross-validation among levels, given by name, and fit it to all rows.

    All labels have the same penalty: one for each label had no higher mean average precision (see
    `regraft bench several_labels`). Without two groups of images, it is not chosen.

    Args:
        candidates: features of the same rows, with labels uint8 [n, k].
        options: the options of the step.
    """
    clock, first = Clock(), next(iter(candidates.values()))
    sample = sample_rows(first.images, SELECTION_ROWS, options.seed)
    labels, images = first.labels[sample], first.images[sample]
    folds = min(options.folds, len(np.unique(images)))
    if folds < 2:
        return _without_folds(candidates, options)
    task = LabelTask(
        sample,
        labels,
        deal_label_folds(labels, images, folds, options.seed),
        folds,
        np.flatnonzero(sample < len(first) // first.views),
    )
    with threadpool_limits(1, "blas"):
        screened = _screen(candidates, task)
        best = min(screened, key=lambda trial: trial.loss)
        rows = candidates[best.levels]
        scaled = scalings(rows)[best.scaling].apply(rows.take(sample))
        trials, logits = _follow_path(scaled, task, options, best)
        chosen = min(trials, key=lambda trial: trial.loss)
        fitted = fit_labels(rows, best.scaling, chosen.penalty * len(sample) / len(rows), sample)
    known = task.known
    calibration = PlattScaling.fit(logits, known)
    logits, fitted = calibration.logits(logits), calibration.weights(fitted)
    probabilities = served_probabilities(logits)
    thresholds = choose_thresholds(probabilities, known)
    macro, micro = f1_scores(probabilities >= np.array(thresholds, np.float32), known)
    kept = len(known) if len(sample) == len(rows) else 0
    log_progress(f"head: chosen and fitted in {clock.seconds:.1f} s")
    return LabelHead(
        fitted.kernel, fitted.bias, best.levels, best.scaling, chosen.penalty, len(sample), folds,
        calibration, thresholds,
        trials=sorted(trials, key=lambda trial: trial.loss) + screened,
        held_out={"log_loss": float(binary_losses(logits, known).mean()), "macro_f1": macro,
                  "micro_f1": micro},
        held_out_logits=logits[:kept], held_out_labels=known[:kept],
    )  # fmt: skip


def fit_label_head_again(head: LabelHead, rows: HeadRows, options: HeadOptions) -> Weights:
    """Fit a chosen head to other rows of its levels, as `choose_label_head` does."""
    sample = sample_rows(rows.images, SELECTION_ROWS, options.seed)
    with threadpool_limits(1, "blas"):
        fitted = fit_labels(rows, head.scaling, head.penalty * head.rows / len(rows), sample)
    return head.calibration.weights(fitted)


def fit_labels(rows: HeadRows, scaling: str, penalty: float, sample: NDArray[np.int64]) -> Weights:
    """Fit one logistic regression per label to all rows, for unscaled features.

    Args:
        rows: with labels uint8 [n, k].
        scaling: name of the scaling of the features.
        penalty: of each label.
        sample: rows whose principal axes are used, if they span all rows.
    """
    chosen, targets = scalings(rows)[scaling], rows.labels.astype(np.float64)
    fits = LogisticFits(rows, targets, np.ones(len(rows)), chosen, sample, BINARY)
    return fits.fit(penalty).of_features(chosen)


def deal_label_folds(
    labels: Labels, images: NDArray[np.int64], folds: int, seed: int
) -> NDArray[np.int64]:
    """Return the fold of each row, [n]: all rows of an image are in one, each label in all."""
    distinct, unit_of = np.unique(images, return_inverse=True)
    counts = np.zeros((len(distinct), labels.shape[1]), np.int64)
    np.add.at(counts, unit_of, labels)
    order = np.random.default_rng(seed).permutation(len(distinct))
    sizes = np.bincount(unit_of)
    fold_of = np.empty(len(distinct), np.int64)
    fold_of[order] = stratify(counts[order], sizes[order], [1 / folds] * folds)
    return fold_of[unit_of]


@dataclass(frozen=True)
class LabelTask:
    """The rows that are compared: their indices, labels [m, k] and folds [m].

    `scored` are the places in the sample of the first view of each image, whose held-out logits
    count.
    """

    sample: NDArray[np.int64]
    labels: Labels
    fold_of: NDArray[np.int64]
    folds: int
    scored: NDArray[np.int64]

    @property
    def known(self) -> Labels:
        """The labels of the scored rows."""
        return self.labels[self.scored]


def _without_folds(candidates: Mapping[str, HeadRows], options: HeadOptions) -> LabelHead:
    levels, rows = next(iter(candidates.items()))
    penalty = options.l2 or DEFAULT_PENALTY
    fitted = fit_labels(rows, "level", penalty, np.arange(len(rows)))
    log_progress(f"head: penalty {penalty:.1e} without cross-validation of one group of images")
    thresholds = [EVEN] * rows.labels.shape[1]
    calibration = PlattScaling(np.ones(len(thresholds)), np.zeros(len(thresholds)))
    return LabelHead(
        fitted.kernel, fitted.bias, levels, "level", penalty, len(rows), 0, calibration, thresholds
    )


def _screen(candidates: Mapping[str, HeadRows], task: LabelTask) -> list[LabelTrial]:
    """Return the best ridge regression of each of the levels and scalings."""
    targets = task.labels.astype(np.float64)

    def evaluate(names: tuple[str, str], penalty: float, scores: Floats) -> LabelTrial:
        loss = float(np.square(scores - targets)[task.scored].mean())
        return LabelTrial(*names, "ridge", penalty, loss, len(targets))

    weights = np.ones(len(targets))
    tried = screen_levels(candidates, task.sample, targets, weights, task.fold_of, evaluate)
    found = [min(of_pair, key=lambda trial: trial.loss) for of_pair in tried]
    _log(found, "Brier score")
    return found


def _follow_path(
    scaled: NDArray[np.float32], task: LabelTask, options: HeadOptions, best: LabelTrial
) -> tuple[list[LabelTrial], Floats]:
    """Return the logistic regressions, and the held-out logits [scored, k] of the best one."""
    exponents: Sequence[float] = PATHS["logistic"]
    penalties = [options.l2] if options.l2 else [10.0**exponent for exponent in exponents]
    targets, weights = task.labels.astype(np.float64), np.ones(len(scaled))
    path = held_out_regressions(scaled, targets, weights, task.fold_of, BINARY, penalties)
    trials: list[LabelTrial] = []
    kept, lowest = np.empty((0, 0)), math.inf
    with closing(path):
        for penalty, fitted in zip(penalties, path, strict=False):
            logits = fitted.logits[task.scored]
            loss = float(binary_losses(logits, task.known).mean())
            trials.append(
                LabelTrial(best.levels, best.scaling, "logistic", penalty, loss, len(scaled))
            )
            if loss >= lowest:
                break
            kept, lowest = logits, loss
    _log(trials, "log loss")
    return trials, kept


def _log(trials: Sequence[LabelTrial], name: str) -> None:
    for trial in trials:
        log_progress(
            f"head: {trial.levels}, one scale per {trial.scaling}, {trial.method} regression: "
            f"{name} {trial.loss:.4f} at penalty {trial.penalty:.1e}"
        )
