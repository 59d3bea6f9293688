"""Quick fits of all levels and scalings, by ridge regression."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from regraft_core.runtime.step_reports import ProgressReporter
from regraft_core.training.linear_head.head_rows import HeadRows, scalings
from regraft_core.training.linear_head.ridge_regression import RidgeFolds

Floats = NDArray[np.float64]
Fit = TypeVar("Fit")
# Exponents of ten of the penalties: to compare levels, a few suffice.
SCREENING: tuple[float, ...] = (-2, -4, -6)
# Each fit that is compared at the same time holds its rows.
MAX_THREADS = 4


def screen_levels(
    candidates: Mapping[str, HeadRows], sample: NDArray[np.int64], targets: Floats,
    weights: Floats, fold_of: NDArray[np.int64],
    evaluate: Callable[[tuple[str, str], float, Floats], Fit],
) -> list[list[Fit]]:  # fmt: skip
    """Fit ridge regression to each of the levels with each scaling, with a few penalties.

    Args:
        candidates: features of the same rows, by name of the levels.
        sample: indices of the rows that are compared, [m].
        targets: of the compared rows, [m, k].
        weights: of the compared rows, [m].
        fold_of: folds of the compared rows, [m].
        evaluate: maps the names of levels and scaling, the penalty, and the scores [m, k] by fits
            that saw no row of its fold, to what is returned.

    Returns:
        What `evaluate` returned: a list of the penalties for each levels and scaling.
    """
    pairs = [(levels, name) for levels, rows in candidates.items() for name in scalings(rows)]
    progress = ProgressReporter("head: fits to compare levels", len(pairs) * len(SCREENING))

    def fit(names: tuple[str, str]) -> list[Fit]:
        rows = candidates[names[0]]
        scaled = scalings(rows)[names[1]].apply(rows.take(sample))
        path, found = RidgeFolds(scaled, targets, weights, fold_of), []
        for exponent in SCREENING:
            found.append(evaluate(names, 10.0**exponent, path.scores(10.0**exponent)["ridge"]))
            progress.advance()
        return found

    with ThreadPoolExecutor(thread_count()) as pool:
        return list(pool.map(fit, pairs))


def thread_count() -> int:
    """Return how many fits are compared at the same time."""
    return min(os.cpu_count() or 1, MAX_THREADS)
