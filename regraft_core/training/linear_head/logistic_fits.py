"""Logistic regressions of classes or of labels: of all folds but one, and of all rows."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from regraft_core.runtime.machine import available_cores
from regraft_core.runtime.step_reports import ProgressReporter
from regraft_core.training.linear_head.head_rows import HeadRows, fits_in_memory, sample_rows
from regraft_core.training.linear_head.linear_classifier import Scaling, Weights
from regraft_core.training.linear_head.linear_problem import (
    Axes,
    Problem,
    principal_axes,
)
from regraft_core.training.linear_head.loss_minimization import Solver
from regraft_core.training.linear_head.penalty_path import Solution, predict_solution

Floats = NDArray[np.float64]
# Features up to these have their products computed, from twice as many rows; it takes seconds.
MAX_PRODUCTS = 8192


class HeldOutRegression(NamedTuple):
    """Fits of all folds but one: each row's logits [n, k] by the fit that did not see its fold.

    `mean` is the mean of the fits, a classifier of scaled features.
    """

    logits: Floats
    mean: Weights


def held_out_regressions(
    rows: NDArray[np.float32], targets: Floats, weights: Floats, fold_of: NDArray[np.int64],
    solver: Solver, penalties: Sequence[float],
) -> Generator[HeldOutRegression, None, None]:  # fmt: skip
    """Yield the fits of all folds but one for each penalty.

    A fit starts from the weights of the penalties before. No fold waits for the others, so the fits
    are ahead of the caller; they end when the generator is closed.

    Args:
        rows: scaled, [n, width].
        targets: of the rows, [n, k].
        weights: of the rows, [n].
        fold_of: folds of the rows, [n].
        solver: the kind of logistic regression.
        penalties: from strong to weak.
    """
    axes = principal_axes(rows)
    coordinates, folds = axes.coordinates, [fold_of == fold for fold in np.unique(fold_of)]
    problems = [
        Problem([coordinates[~inside]], targets[~inside], weights[~inside], axes.squares)
        for inside in folds
    ]
    progress = ProgressReporter("head: fits of logistic regression", len(folds) * len(penalties))

    def fit(problem: Problem, penalty: float, before: Sequence[Future[Solution]]) -> Solution:
        prior = solver.prior(problem.targets, len(axes.squares))
        start = predict_solution([one.result() for one in before], penalty, prior)
        fitted = solver.solve(problem, penalty, start)
        progress.advance()
        return Solution(penalty, fitted)

    pool = ThreadPoolExecutor(available_cores())
    try:
        paths: list[list[Future[Solution]]] = [[] for _ in folds]
        for penalty in penalties:
            for problem, path in zip(problems, paths, strict=True):
                path.append(pool.submit(fit, problem, penalty, path[-2:]))
        for of_folds in zip(*paths, strict=True):
            fits = [one.result().weights for one in of_folds]
            logits = np.empty(targets.shape)
            for inside, fitted in zip(folds, fits, strict=True):
                logits[inside] = fitted.logits(coordinates[inside])
            kernel = np.mean([one.kernel for one in fits], axis=0)
            mean = Weights(kernel, np.mean([one.bias for one in fits], axis=0))
            yield HeldOutRegression(logits, axes.to_features(mean))
    finally:
        pool.shutdown(cancel_futures=True)


class LogisticFits:
    """Fits of all rows from penalty to penalty, each from the weights of those before."""

    def __init__(
        self, rows: HeadRows, targets: Floats, weights: Floats, scaling: Scaling,
        sample: NDArray[np.int64], solver: Solver, start: Weights | None = None,
    ) -> None:  # fmt: skip
        """Take the arguments of `make_problem`, the kind of logistic regression, and a start.

        The start is a classifier of scaled features, by default the best one without features.
        """
        self._problem, self._axes = make_problem(rows, targets, weights, scaling, sample)
        self._solver = solver
        if start is None:
            self._start = solver.prior(targets, len(self._problem.squares))
        else:
            self._start = start if self._axes is None else self._axes.of_features(start)
        self._path: list[Solution] = []

    def fit(self, penalty: float) -> Weights:
        """Return the classifier of scaled features."""
        step = ProgressReporter("head: steps of logistic regression", total=None).advance
        start = predict_solution(self._path, penalty, self._start)
        fitted = self._solver.solve(self._problem, penalty, start, step)
        self._path = [*self._path[-1:], Solution(penalty, fitted)]
        return fitted if self._axes is None else self._axes.to_features(fitted)


def make_problem(
    rows: HeadRows, targets: Floats, weights: Floats, scaling: Scaling, sample: NDArray[np.int64]
) -> tuple[Problem, Axes | None]:
    """Return the problem of a logistic regression of all rows, on the axes of the sample's rows.

    If these are too few for the span of all rows, the features themselves are the axes.

    Args:
        rows: the training rows.
        targets: of the rows, [n, k].
        weights: of the rows, [n].
        scaling: of the features.
        sample: indices of rows.

    Returns:
        The problem, and the axes of its solution; None for those of the scaled features.
    """
    width = len(rows.mean)
    if min(len(rows), width) > len(sample):
        squares = _squares(rows, scaling)
        if fits_in_memory(len(rows), width):
            scaled = [scaling.apply(part) for part in rows.parts]
            return Problem(scaled, targets, weights, squares), None
        return Problem(rows.parts, targets, weights, squares, scaling, executor=rows.executor), None
    axes = principal_axes(scaling.apply(rows.take(sample)))
    if len(sample) == len(rows):
        return Problem([axes.coordinates], targets, weights, axes.squares), axes
    if fits_in_memory(len(rows), len(axes.squares)):
        coordinates = [scaling.apply(part) @ axes.basis for part in rows.parts]
        return Problem(coordinates, targets, weights, axes.squares), axes
    return Problem(rows.parts, targets, weights, axes.squares, scaling, axes, rows.executor), axes


def _squares(rows: HeadRows, scaling: Scaling) -> NDArray[np.float64]:
    """Return the mean products of scaled features [width, width], or of very many their squares."""
    width = len(rows.mean)
    if width > MAX_PRODUCTS:
        return rows.variance.astype(np.float64) * np.square(scaling.factor.astype(np.float64))
    some = scaling.apply(rows.take(sample_rows(rows.images, 2 * width, seed=0)))
    return (some.T @ some).astype(np.float64) / len(some)
