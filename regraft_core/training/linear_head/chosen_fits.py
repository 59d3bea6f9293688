"""Fits the members of a chosen head to all rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import chain

import numpy as np

from regraft_core.training.linear_head.head_rows import HeadRows, scalings
from regraft_core.training.linear_head.held_out_fits import FitTask, Trial
from regraft_core.training.linear_head.level_screening import thread_count
from regraft_core.training.linear_head.linear_classifier import Scaling, Weights
from regraft_core.training.linear_head.logistic_fits import LogisticFits
from regraft_core.training.linear_head.logistic_regression import MULTINOMIAL
from regraft_core.training.linear_head.ridge_regression import RidgeSystem


class MemberFits:
    """Fits of all rows, which share what does not depend on method and penalty.

    `solutions` are the last logistic regressions, of scaled features, by the name of the scaling.
    """

    def __init__(
        self, rows: HeadRows, task: FitTask, starts: Mapping[str, Weights] | None = None
    ) -> None:
        """Take rows, the task of fitting them, and the solutions of similar rows to start from."""
        self._rows, self._task, self._scalings = rows, task, scalings(rows)
        self.solutions = dict(starts or {})
        self._ridge: dict[str, RidgeSystem] = {}
        self._logistic: dict[str, LogisticFits] = {}

    def mean(self, members: Sequence[Trial], compared: float) -> Weights:
        """Return the mean classifier of the members, for unscaled features.

        `compared` is how many rows the members' penalties are for: more rows need a weaker penalty
        of the mean loss.
        """
        # What members share is computed by one thread.
        shared: dict[tuple[str, bool], list[Trial]] = {}
        for trial in members:
            shared.setdefault((trial.scaling, trial.method == "logistic"), []).append(trial)

        def fit_each(trials: list[Trial]) -> list[tuple[Trial, Weights]]:
            return [
                (one, self.fit(replace(one, penalty=one.penalty * compared / len(self._rows))))
                for one in trials
            ]

        # Of many rows, each fit has blocks for all cores or workers, and takes memory for them.
        few = len(self._rows) == len(self._task.sample) and self._rows.executor is None
        threads = thread_count() if few else 1
        with ThreadPoolExecutor(threads) as pool:
            fitted = dict(chain.from_iterable(pool.map(fit_each, shared.values())))
        return Weights(
            np.mean([fitted[one].kernel / one.temperature for one in members], axis=0),
            np.mean([fitted[one].bias / one.temperature for one in members], axis=0),
        )

    def fit(self, trial: Trial) -> Weights:
        """Fit a trial's method, scaling and penalty, for unscaled features."""
        scaling = self._scalings[trial.scaling]
        if trial.method == "logistic":
            fitted = self._logistic_fits(trial.scaling, scaling).fit(trial.penalty)
            self.solutions[trial.scaling] = fitted
        else:
            fitted = self._ridge_system(trial.scaling, scaling).fit(trial.penalty, trial.method)
        return fitted.of_features(scaling)

    def _logistic_fits(self, name: str, scaling: Scaling) -> LogisticFits:
        if name not in self._logistic:
            targets, weights, sample = self._task.targets, self._task.weights, self._task.sample
            self._logistic[name] = LogisticFits(
                self._rows, targets, weights, scaling, sample, MULTINOMIAL,
                self.solutions.get(name),
            )  # fmt: skip
        return self._logistic[name]

    def _ridge_system(self, name: str, scaling: Scaling) -> RidgeSystem:
        if name not in self._ridge:
            rows, task = self._rows, self._task
            self._ridge[name] = RidgeSystem(
                rows.parts, task.targets, task.weights, scaling, rows.executor
            )
        return self._ridge[name]
