"""Which linear head suits the features: levels, scaling, method and penalty, by cross-validation.

Ridge regression, which is quick, chooses the levels. Then discriminant analysis, which needs little
more, and logistic regression are fitted to them, and the head is the mean of those fits that
together have the lowest log loss on held-out images: a mean of linear classifiers is a linear
classifier. Fits are compared by the log loss at their best temperature, which depends less on
chance than their accuracy does.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax
from threadpoolctl import threadpool_limits

from regraft_core.formats.options import HeadOptions, Objective
from regraft_core.runtime.step_reports import Clock, log_progress
from regraft_core.training.intervals import wilson_interval
from regraft_core.training.linear_head.head_rows import (
    HeadRows,
    deal_folds,
    sample_rows,
    scalings,
    scored_rows,
)
from regraft_core.training.linear_head.held_out_scores import (
    choose_offset,
    fit_temperature,
    score,
    smoothed_loss,
)
from regraft_core.training.linear_head.linear_classifier import Scaling, Weights
from regraft_core.training.linear_head.logistic_regression import (
    Problem,
    principal_axes,
    prior_weights,
    solve,
)
from regraft_core.training.linear_head.ridge_regression import (
    ClosedForm,
    RidgeFolds,
    fit_ridge,
)

Floats = NDArray[np.float64]
Method = Literal["ridge", "discriminant", "logistic"]
CLOSED_FORMS: tuple[ClosedForm, ...] = ("ridge", "discriminant")
METHOD_NAMES: dict[Method, str] = {
    "ridge": "ridge regression",
    "discriminant": "discriminant analysis",
    "logistic": "logistic regression",
}
# Exponents of ten of the penalties, from strong to weak, for rows whose mean square length is 1. To
# compare levels a few suffice; on a path, the first that has no lower loss ends it. Discriminant
# analysis is on the path of ridge regression.
SCREENING: tuple[float, ...] = (-2, -4, -6)
PATHS: dict[str, tuple[float, ...]] = {
    "ridge": (-1, -2, -3, -3.5, -4, -4.5, -5, -6),
    "logistic": (-2, -3, -3.5, -4, -4.5, -5, -6),
}
DEFAULT_PENALTY = 1e-3
# Levels, and then the fits on them, are compared on samples of this many rows. Logistic regression
# of all rows uses the principal axes of the sample's if rows or features are not more than these.
SCREENING_ROWS, SELECTION_ROWS = 1500, 3000
# Fits in closed form of all rows take part if rows or features are not more than these.
MAX_EQUATIONS = 8192
# Rows in memory as float32 up to this size, otherwise scaled again in each step.
IN_MEMORY_BYTES = 1 << 30
# Each fit that is compared at the same time holds its rows.
MAX_THREADS = 4


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
class SolvedHead:
    """The chosen head: logits are `features @ kernel + bias + offset`, for unscaled features.

    Kernel and bias are the mean of those of its `members`, and the temperature is part of them.
    The penalties of the members are those of `rows` rows. `trials` are all fits that were compared,
    the best first; none if no class has two images. `loss` is the held-out log loss, and `held_out`
    maps the names of objectives to their held-out values.
    """

    kernel: Floats
    bias: Floats
    offset: Floats
    levels: str
    members: list[Trial]
    rows: int
    folds: int
    temperature: float = 1.0
    loss: float = float("nan")
    trials: list[Trial] = field(default_factory=list)
    held_out: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class _Fit:
    """A fit of the sample's rows, and its logits of the scored rows at its temperature."""

    trial: Trial
    logits: Floats


@dataclass(frozen=True)
class _Task:
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


def solve_head(
    candidates: Mapping[str, HeadRows], classes: int, class_weights: Sequence[float] | None,
    options: HeadOptions,
) -> SolvedHead:  # fmt: skip
    """Choose a head by cross-validation among levels, given by name, and fit it to all rows.

    With a penalty in the options, the head is a logistic regression with that penalty. One thread
    computes a fit: matrices this narrow gain nothing from several, and lose where other processes
    use the cores.
    """
    clock, first = Clock(), next(iter(candidates.values()))
    task = _task(first, classes, class_weights, options, SELECTION_ROWS)
    with threadpool_limits(1, "blas"):
        if not len(task.scored):
            return _without_folds(candidates, task, options)
        screening = _task(first, classes, class_weights, options, SCREENING_ROWS)
        levels, screened = _choose_levels(candidates, screening)
        rows = candidates[levels]
        fits = _compare(rows, levels, task, options)
        _log([*screened, *fits])
        best = _best_mean(_eligible(fits, rows, options), task.known)
        fitted = _fit_members(rows, task, best.members, len(task.sample))
    log_progress(f"head: chosen and fitted in {clock.seconds:.1f} s")
    frequencies = task.targets.mean(axis=0) + 1.0 / len(task.targets)
    frequencies /= frequencies.sum()
    offset = choose_offset(options.optimize, best.logits, task.known, frequencies)
    adjusted = (best.logits + offset).argmax(axis=1)
    objectives: tuple[Objective, ...] = ("accuracy", "balanced-accuracy", "macro-f1")
    return SolvedHead(
        kernel=fitted.kernel / best.temperature, bias=fitted.bias / best.temperature, offset=offset,
        levels=levels, members=best.members, rows=len(task.sample), folds=task.folds,
        temperature=best.temperature, loss=best.loss,
        trials=sorted((fit.trial for fit in (*screened, *fits)), key=lambda trial: trial.loss),
        held_out={kind: score(kind, adjusted, task.known) for kind in objectives},
    )  # fmt: skip


def fit_again(
    solved: SolvedHead, rows: HeadRows, class_weights: Sequence[float] | None, options: HeadOptions
) -> Weights:
    """Fit the members of a chosen head to other rows of its levels, as `solve_head` does."""
    task = _task(rows, len(solved.offset), class_weights, options, SELECTION_ROWS)
    with threadpool_limits(1, "blas"):
        fitted = _fit_members(rows, task, solved.members, solved.rows)
    return Weights(fitted.kernel / solved.temperature, fitted.bias / solved.temperature)


def held_out_losses(rows: HeadRows, classes: int, options: HeadOptions) -> Floats:
    """Return the log loss of each image by the best head on these rows that saw none of its rows.

    Images of a class of one are missing, and the others of a group of near duplicates.
    """
    task = _task(rows, classes, None, options, len(rows))
    with threadpool_limits(1, "blas"):
        best = _best_mean(_compare(rows, "", task, options), task.known)
    losses: Floats = -log_softmax(best.logits, axis=1)[np.arange(len(task.known)), task.known]
    return losses


def _task(
    rows: HeadRows, classes: int, class_weights: Sequence[float] | None, options: HeadOptions,
    limit: int,
) -> _Task:  # fmt: skip
    targets = np.eye(classes)[rows.labels]
    targets = targets * (1 - options.label_smoothing) + options.label_smoothing / classes
    weights = np.ones(len(rows)) if class_weights is None else np.array(class_weights)[rows.labels]
    sample = sample_rows(rows.images, limit, options.seed)
    labels, images = rows.labels[sample], rows.images[sample]
    folds = min(options.folds, len(np.unique(images)))
    return _Task(
        targets, weights / weights.mean(), sample, deal_folds(labels, images, folds, options.seed),
        folds, scored_rows(labels, images), labels,
    )  # fmt: skip


def _without_folds(
    candidates: Mapping[str, HeadRows], task: _Task, options: HeadOptions
) -> SolvedHead:
    levels, rows = next(iter(candidates.items()))
    nan = float("nan")
    trial = Trial(
        levels, "level", "logistic", options.l2 or DEFAULT_PENALTY, nan, nan, 1.0, len(rows),
        nan, nan,
    )  # fmt: skip
    fitted = _fit(rows, task, trial)
    log_progress(
        f"head: penalty {trial.penalty:.1e} without cross-validation, because no class has two "
        "images"
    )
    offset = np.zeros(task.targets.shape[1])
    return SolvedHead(fitted.kernel, fitted.bias, offset, levels, [trial], len(rows), folds=0)


def _choose_levels(candidates: Mapping[str, HeadRows], task: _Task) -> tuple[str, list[_Fit]]:
    """Return the levels of the best ridge regression, and the best one of each that was tried."""
    pairs = [(levels, name) for levels, rows in candidates.items() for name in scalings(rows)]

    def best(pair: tuple[str, str]) -> _Fit:
        scores = _ridge_scores(candidates[pair[0]], pair[1], task)
        fits = [_trial(scores(10.0**e)["ridge"], 10.0**e, "ridge", pair, task) for e in SCREENING]
        return min(fits, key=lambda fit: fit.trial.loss)

    with ThreadPoolExecutor(_threads()) as pool:
        fits = list(pool.map(best, pairs))
    return min(fits, key=lambda fit: fit.trial.loss).trial.levels, fits


def _compare(rows: HeadRows, levels: str, task: _Task, options: HeadOptions) -> list[_Fit]:
    """Return the best ridge regression of each scaling, and the best of the other methods.

    Logistic regression takes the scaling of the better ridge regression.
    """

    def closed_forms(name: str) -> dict[Method, _Fit]:
        scores = _ridge_scores(rows, name, task)
        return _best_penalties(scores, PATHS["ridge"], (levels, name), task)

    with ThreadPoolExecutor(_threads()) as pool:
        found = list(pool.map(closed_forms, scalings(rows)))
    ridge, discriminant = ([fits[method] for fits in found] for method in CLOSED_FORMS)
    best = min(ridge, key=lambda fit: fit.trial.loss).trial.scaling
    return [
        *ridge,
        min(discriminant, key=lambda fit: fit.trial.loss),
        _logistic(rows, (levels, best), task, options),
    ]


def _log(fits: Sequence[_Fit]) -> None:
    for trial in (fit.trial for fit in fits):
        method = METHOD_NAMES[trial.method]
        log_progress(
            f"head: {trial.levels}, one scale per {trial.scaling}, {method}: log "
            f"loss {trial.loss:.4f}, accuracy {trial.accuracy:.4f} at penalty {trial.penalty:.1e}"
        )


def _threads() -> int:
    return min(os.cpu_count() or 1, MAX_THREADS)


def _eligible(fits: Sequence[_Fit], rows: HeadRows, options: HeadOptions) -> list[_Fit]:
    """Return the fits that all rows can have; the last is the logistic regression."""
    if options.l2 or min(len(rows), len(rows.mean)) > MAX_EQUATIONS:
        return [fits[-1]]
    return list(fits)


@dataclass(frozen=True)
class _Mean:
    """The mean of some fits, and its held-out logits and their loss at its temperature."""

    members: list[Trial]
    logits: Floats
    temperature: float
    loss: float


def _best_mean(fits: Sequence[_Fit], labels: NDArray[np.int32]) -> _Mean:
    """Return the mean of those fits that together have the lowest held-out loss."""
    found = []
    for size in range(1, len(fits) + 1):
        for members in combinations(fits, size):
            logits = np.mean([member.logits for member in members], axis=0)
            temperature = fit_temperature(logits, labels)
            logits = logits / temperature
            trials = [member.trial for member in members]
            found.append(_Mean(trials, logits, temperature, smoothed_loss(logits, labels)))
    return min(found, key=lambda mean: mean.loss)


def _ridge_scores(
    rows: HeadRows, scaling: str, task: _Task
) -> Callable[[float], dict[ClosedForm, Floats]]:
    scaled = scalings(rows)[scaling].apply(rows.take(task.sample))
    targets, weights = task.targets[task.sample], task.weights[task.sample]
    return RidgeFolds(scaled, targets, weights, task.fold_of).scores


def _logistic(rows: HeadRows, names: tuple[str, str], task: _Task, options: HeadOptions) -> _Fit:
    scaled = scalings(rows)[names[1]].apply(rows.take(task.sample))
    path = _LogisticFolds(scaled, task)
    if options.l2:
        return _trial(path.logits(options.l2), options.l2, "logistic", names, task)
    return _best_penalties(
        lambda penalty: {"logistic": path.logits(penalty)}, PATHS["logistic"], names, task
    )["logistic"]


def _best_penalties(
    held_out: Callable[[float], Mapping[Any, Floats]], path: Sequence[float],
    names: tuple[str, str], task: _Task,
) -> dict[Method, _Fit]:  # fmt: skip
    """Return the fit of each method with the penalty of the lowest loss on the path.

    The path ends at the first penalty that is better for none of them.
    """
    best: dict[Method, _Fit] = {}
    for exponent in path:
        fits = {
            method: _trial(scores, 10.0**exponent, method, names, task)
            for method, scores in held_out(10.0**exponent).items()
        }
        better = {
            method: fit for method, fit in fits.items()
            if method not in best or fit.trial.loss < best[method].trial.loss
        }  # fmt: skip
        if not better:
            break
        best |= better
    return best


def _trial(
    held_out: Floats, penalty: float, method: Method, names: tuple[str, str], task: _Task
) -> _Fit:
    logits, labels = held_out[task.scored], task.known
    temperature = fit_temperature(logits, labels)
    logits = logits / temperature
    correct = int(np.sum(logits.argmax(axis=1) == labels))
    trial = Trial(
        *names, method, penalty, smoothed_loss(logits, labels), correct / len(labels), temperature,
        len(task.sample), *wilson_interval(correct, len(labels)),
    )  # fmt: skip
    return _Fit(trial, logits)


class _LogisticFolds:
    """Fits of all folds but one from penalty to penalty, each from the last one's weights."""

    def __init__(self, rows: NDArray[np.float32], task: _Task) -> None:
        axes = principal_axes(rows)
        self._rows, self._task = rows @ axes.basis, task
        targets, weights = task.targets[task.sample], task.weights[task.sample]
        kept = [task.fold_of != k for k in range(task.folds)]
        self._problems = [
            Problem([self._rows[one]], targets[one], weights[one], axes.squares) for one in kept
        ]
        self._fits = [prior_weights(one.targets, len(axes.squares)) for one in self._problems]

    def logits(self, penalty: float) -> Floats:
        """Fit all folds and return each row's logits by the fit that did not see it."""
        found = np.empty((len(self._rows), self._task.targets.shape[1]))

        def fit(k: int) -> None:
            self._fits[k] = solve(self._problems[k], penalty, self._fits[k])
            inside = self._task.fold_of == k
            found[inside] = self._fits[k].logits(self._rows[inside])

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(fit, range(len(self._problems))))
        return found


def _fit_members(rows: HeadRows, task: _Task, members: Sequence[Trial], compared: int) -> Weights:
    """Fit the members to all rows and return the mean classifier of unscaled features.

    More rows than the members were compared on need a weaker penalty of the mean loss.
    """
    kernels, biases = [], []
    for trial in members:
        penalty = trial.penalty * compared / len(rows)
        fitted = _fit(rows, task, replace(trial, penalty=penalty))
        kernels.append(fitted.kernel / trial.temperature)
        biases.append(fitted.bias / trial.temperature)
    return Weights(np.mean(kernels, axis=0), np.mean(biases, axis=0))


def _fit(rows: HeadRows, task: _Task, trial: Trial) -> Weights:
    scaling = scalings(rows)[trial.scaling]
    if trial.method == "logistic":
        fitted = _fit_logistic(rows, task, scaling, trial.penalty)
    else:
        fitted = fit_ridge(
            rows.parts, task.targets, task.weights, scaling, trial.penalty, trial.method
        )
    return fitted.of_features(scaling)


def _fit_logistic(rows: HeadRows, task: _Task, scaling: Scaling, penalty: float) -> Weights:
    """Fit a logistic regression to all rows, on the axes of the sample's rows.

    If these are too few for the span of all rows, the features themselves are the axes.
    """
    targets, weights = task.targets, task.weights
    if min(len(rows), len(rows.mean)) > SELECTION_ROWS:
        squares = rows.variance.astype(np.float64) * np.square(scaling.factor.astype(np.float64))
        problem = Problem(rows.parts, targets, weights, squares, scaling)
        return solve(problem, penalty, prior_weights(targets, len(squares)))
    axes = principal_axes(scaling.apply(rows.take(task.sample)))
    if 4 * len(rows) * len(axes.squares) <= IN_MEMORY_BYTES:
        coordinates = [scaling.apply(part) @ axes.basis for part in rows.parts]
        problem = Problem(coordinates, targets, weights, axes.squares)
    else:
        problem = Problem(rows.parts, targets, weights, axes.squares, scaling, axes)
    fitted = solve(problem, penalty, prior_weights(targets, len(axes.squares)))
    return Weights(axes.basis.astype(np.float64) @ fitted.kernel, fitted.bias)
