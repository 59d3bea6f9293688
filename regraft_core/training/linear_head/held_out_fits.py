"""Fits of a head that did not see the rows that they predict, and how they compare.

Fits are compared by the log loss at their best temperature, which depends less on chance than their
accuracy does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from regraft_core.formats.options.train_head import HeadOptions
from regraft_core.runtime.step_reports import ProgressReporter
from regraft_core.training.intervals import wilson_interval
from regraft_core.training.linear_head.head_rows import (
    HeadRows,
    deal_folds,
    sample_rows,
    scalings,
    scored_rows,
)
from regraft_core.training.linear_head.held_out_scores import fit_temperature, smoothed_loss
from regraft_core.training.linear_head.level_screening import screen_levels, thread_count
from regraft_core.training.linear_head.linear_classifier import Weights
from regraft_core.training.linear_head.logistic_fits import held_out_regressions
from regraft_core.training.linear_head.logistic_regression import MULTINOMIAL
from regraft_core.training.linear_head.ridge_regression import ClosedForm, RidgeFolds

Floats = NDArray[np.float64]
Method = Literal["ridge", "discriminant", "logistic"]
CLOSED_FORMS: tuple[ClosedForm, ...] = ("ridge", "discriminant")
# Exponents of ten of the penalties, from strong to weak, for rows whose mean square length is 1. On
# a path, the first that has no lower loss ends it. Discriminant analysis is on the path of ridge
# regression.
PATHS: dict[str, tuple[float, ...]] = {
    "ridge": (-1, -2, -3, -3.5, -4, -4.5, -5, -6),
    "logistic": (-2, -3, -3.5, -4, -4.5, -5, -6),
}


@dataclass(frozen=True)
class Trial:
    """One fit: its mean log loss and accuracy on held-out images, at its temperature.

    `rows` are those that it was fitted to or held out of; the accuracy has its 95% interval.
    """

    levels: str
    scaling: str
    method: Method
    penalty: float
    loss: float
    accuracy: float
    temperature: float
    rows: int
    accuracy_low: float
    accuracy_high: float


@dataclass(frozen=True)
class HeldOutFit:
    """A fit of the sample's rows, and its logits of the scored rows at its temperature.

    `solution` is about that of all rows of the sample, for scaled features, if it takes steps to
    find: further fits start from it.
    """

    trial: Trial
    logits: Floats
    solution: Weights | None = None


@dataclass(frozen=True)
class FitTask:
    """What all fits have in common: targets [n, k] and weights [n] of all rows, and the folds.

    `sample` are the rows that are compared, `fold_of` their folds and `scored` the places in the
    sample of the rows whose held-out logits count.
    """

    targets: Floats
    weights: Floats
    sample: NDArray[np.int64]
    fold_of: NDArray[np.int64]
    folds: int
    scored: NDArray[np.int64]
    labels: NDArray[np.int32]

    @property
    def known(self) -> NDArray[np.int32]:
        """The labels of the scored rows."""
        return self.labels[self.scored]


def make_task(
    rows: HeadRows, classes: int, class_weights: Sequence[float] | None, options: HeadOptions,
    limit: int,
) -> FitTask:  # fmt: skip
    """Return the task of fitting rows with the options, compared on at most `limit` of them."""
    targets = np.eye(classes)[rows.labels]
    targets = targets * (1 - options.label_smoothing) + options.label_smoothing / classes
    weights = np.ones(len(rows)) if class_weights is None else np.array(class_weights)[rows.labels]
    sample = sample_rows(rows.images, limit, options.seed)
    labels, images = rows.labels[sample], rows.images[sample]
    folds = min(options.folds, len(np.unique(images)))
    return FitTask(
        targets, weights / weights.mean(), sample, deal_folds(labels, images, folds, options.seed),
        folds, scored_rows(labels, images), labels,
    )  # fmt: skip


def choose_levels(
    candidates: Mapping[str, HeadRows], task: FitTask
) -> tuple[str, list[HeldOutFit]]:
    """Return the levels of the best ridge regression, and the best one of each that was tried."""

    def evaluate(names: tuple[str, str], penalty: float, scores: Floats) -> HeldOutFit:
        return _trial(scores, penalty, "ridge", names, task)

    targets, weights = task.targets[task.sample], task.weights[task.sample]
    tried = screen_levels(candidates, task.sample, targets, weights, task.fold_of, evaluate)
    fits = [min(of_pair, key=lambda fit: fit.trial.loss) for of_pair in tried]
    return min(fits, key=lambda fit: fit.trial.loss).trial.levels, fits


def compare_fits(
    rows: HeadRows, levels: str, task: FitTask, options: HeadOptions
) -> list[HeldOutFit]:
    """Return the best ridge regression of each scaling, and the best of the other methods.

    Logistic regression takes the scaling of the better ridge regression.
    """

    names = list(scalings(rows))
    progress = ProgressReporter("head: fits in closed form", len(names) * len(PATHS["ridge"]))

    def closed_forms(name: str) -> dict[Method, HeldOutFit]:
        penalties = _penalties("ridge")
        scores = map(_ridge_scores(rows, name, task), penalties)
        return _best_penalties(scores, penalties, (levels, name), task, progress.advance)

    with ThreadPoolExecutor(thread_count()) as pool:
        found = list(pool.map(closed_forms, names))
    ridge, discriminant = ([fits[method] for fits in found] for method in CLOSED_FORMS)
    best = min(ridge, key=lambda fit: fit.trial.loss).trial.scaling
    return [
        *ridge,
        min(discriminant, key=lambda fit: fit.trial.loss),
        _logistic(rows, (levels, best), task, options),
    ]


def _penalties(method: str) -> list[float]:
    return [10.0**exponent for exponent in PATHS[method]]


def _ridge_scores(
    rows: HeadRows, scaling: str, task: FitTask
) -> Callable[[float], dict[ClosedForm, Floats]]:
    scaled = scalings(rows)[scaling].apply(rows.take(task.sample))
    targets, weights = task.targets[task.sample], task.weights[task.sample]
    return RidgeFolds(scaled, targets, weights, task.fold_of).scores


def _logistic(
    rows: HeadRows, names: tuple[str, str], task: FitTask, options: HeadOptions
) -> HeldOutFit:
    scaled = scalings(rows)[names[1]].apply(rows.take(task.sample))
    penalties = [options.l2] if options.l2 else _penalties("logistic")
    targets, weights = task.targets[task.sample], task.weights[task.sample]
    path = held_out_regressions(scaled, targets, weights, task.fold_of, MULTINOMIAL, penalties)
    solutions: dict[float, Weights] = {}

    def logits_by_penalty() -> Iterator[dict[Method, Floats]]:
        for penalty, fitted in zip(penalties, path, strict=False):
            solutions[penalty] = fitted.mean
            yield {"logistic": fitted.logits}

    with closing(path):
        best = _best_penalties(logits_by_penalty(), penalties, names, task)["logistic"]
    return replace(best, solution=solutions[best.trial.penalty])


def _best_penalties(
    held_out: Iterable[Mapping[Any, Floats]], penalties: Sequence[float],
    names: tuple[str, str], task: FitTask, done: Callable[[int], object] = lambda count: None,
) -> dict[Method, HeldOutFit]:  # fmt: skip
    """Return the fit of each method with the penalty of the lowest loss on the path.

    The path ends at the first penalty that is better for none of them. `held_out` are the held-out
    scores by method, for one penalty after the other. `done` is called with the number of penalties
    that are done, or not needed any more.
    """
    best: dict[Method, HeldOutFit] = {}
    for tried, (penalty, by_method) in enumerate(zip(penalties, held_out, strict=False), 1):
        fits = {
            method: _trial(scores, penalty, method, names, task)
            for method, scores in by_method.items()
        }
        better = {
            method: fit for method, fit in fits.items()
            if method not in best or fit.trial.loss < best[method].trial.loss
        }  # fmt: skip
        if not better:
            done(len(penalties) - tried + 1)
            break
        done(1)
        best |= better
    return best


def _trial(
    held_out: Floats, penalty: float, method: Method, names: tuple[str, str], task: FitTask
) -> HeldOutFit:
    logits, labels = held_out[task.scored], task.known
    temperature = fit_temperature(logits, labels)
    logits = logits / temperature
    correct = int(np.sum(logits.argmax(axis=1) == labels))
    trial = Trial(
        *names, method, penalty, smoothed_loss(logits, labels), correct / len(labels), temperature,
        len(task.sample), *wilson_interval(correct, len(labels)),
    )  # fmt: skip
    return HeldOutFit(trial, logits)
