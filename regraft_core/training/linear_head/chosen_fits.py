"""Fits the members of a chosen head to all rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from regraft_core.training.linear_head.head_rows import HeadRows, scalings
from regraft_core.training.linear_head.held_out_fits import FitTask, Trial
from regraft_core.training.linear_head.linear_classifier import Weights
from regraft_core.training.linear_head.logistic_fits import fit_logistic
from regraft_core.training.linear_head.logistic_regression import MULTINOMIAL
from regraft_core.training.linear_head.ridge_regression import fit_ridge


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
        fitted = fit_logistic(
            rows, task.targets, task.weights, scaling, task.sample, MULTINOMIAL, trial.penalty
        )
    else:
        fitted = fit_ridge(
            rows.parts, task.targets, task.weights, scaling, trial.penalty, trial.method
        )
    return fitted.of_features(scaling)
