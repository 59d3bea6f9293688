"""Fits the members of a chosen head to all rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from regraft_core.runtime.step_reports import ProgressReporter
from regraft_core.training.linear_head.head_rows import HeadRows, sample_rows, scalings
from regraft_core.training.linear_head.held_out_fits import FitTask, Trial
from regraft_core.training.linear_head.linear_classifier import Scaling, Weights
from regraft_core.training.linear_head.logistic_regression import (
    Axes,
    Problem,
    principal_axes,
    prior_weights,
    solve,
)
from regraft_core.training.linear_head.ridge_regression import fit_ridge

Floats = NDArray[np.float64]
# Rows in memory as float32 up to this size, otherwise scaled again in each step.
IN_MEMORY_BYTES = 2 << 30
# Features up to these have their products computed, from twice as many rows; it takes seconds.
MAX_PRODUCTS = 8192


def fit_members(rows: HeadRows, task: FitTask, members: Sequence[Trial], compared: int) -> Weights:
    """Fit the members to all rows and return the mean classifier of unscaled features.

    More rows than the members were compared on need a weaker penalty of the mean loss.
    """
    kernels, biases = [], []
    for trial in members:
        penalty = trial.penalty * compared / len(rows)
        fitted = fit_trial(rows, task, replace(trial, penalty=penalty))
        kernels.append(fitted.kernel / trial.temperature)
        biases.append(fitted.bias / trial.temperature)
    return Weights(np.mean(kernels, axis=0), np.mean(biases, axis=0))


def fit_trial(rows: HeadRows, task: FitTask, trial: Trial) -> Weights:
    """Fit a trial's method, scaling and penalty to all rows, for unscaled features."""
    scaling = scalings(rows)[trial.scaling]
    if trial.method == "logistic":
        fitted = _fit_logistic(rows, task, scaling, trial.penalty)
    else:
        fitted = fit_ridge(
            rows.parts, task.targets, task.weights, scaling, trial.penalty, trial.method
        )
    return fitted.of_features(scaling)


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
        problem = Problem(rows.parts, targets, weights, _squares(rows, scaling), scaling)
        if 4 * len(rows) * width <= IN_MEMORY_BYTES:
            problem = replace(
                problem, parts=[scaling.apply(part) for part in rows.parts], scaling=None
            )
        return problem, None
    axes = principal_axes(scaling.apply(rows.take(sample)))
    if 4 * len(rows) * len(axes.squares) <= IN_MEMORY_BYTES:
        coordinates = [scaling.apply(part) @ axes.basis for part in rows.parts]
        return Problem(coordinates, targets, weights, axes.squares), axes
    return Problem(rows.parts, targets, weights, axes.squares, scaling, axes), axes


def _fit_logistic(rows: HeadRows, task: FitTask, scaling: Scaling, penalty: float) -> Weights:
    """Fit a multinomial logistic regression to all rows."""
    step = ProgressReporter("head: steps of logistic regression", total=None).advance
    problem, axes = make_problem(rows, task.targets, task.weights, scaling, task.sample)
    fitted = solve(problem, penalty, prior_weights(task.targets, len(problem.squares)), step)
    if axes is None:
        return fitted
    return Weights(axes.basis.astype(np.float64) @ fitted.kernel, fitted.bias)


def _squares(rows: HeadRows, scaling: Scaling) -> NDArray[np.float64]:
    """Return the mean products of scaled features [width, width], or of very many their squares."""
    width = len(rows.mean)
    if width > MAX_PRODUCTS:
        return rows.variance.astype(np.float64) * np.square(scaling.factor.astype(np.float64))
    some = scaling.apply(rows.take(sample_rows(rows.images, 2 * width, seed=0)))
    return (some.T @ some).astype(np.float64) / len(some)
