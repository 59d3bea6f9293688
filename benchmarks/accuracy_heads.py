"""The rows of the accuracy benchmark that measure the head alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax

if TYPE_CHECKING:
    from benchmarks.accuracy_process import Settings

Fit = Callable[[], Callable[[], float]]
ROWS, WIDTH, CLASSES, PENALTY = 1_000_000, 1280, 100, 1e-4
BLOCK, REFERENCE_STEPS = 20_000, 30
ROWS_FILE, LABELS_FILE = "rows.npy", "labels.npy"


def write_rows(folder: Path, rows: int = ROWS, width: int = WIDTH, classes: int = CLASSES) -> None:
    """Write float16 rows around centers of their classes, of low rank and with noise, and labels.

    Like pooled features, they are not negative, and few directions have most of the variance.
    """
    rng = np.random.default_rng(0)
    axes = rng.normal(size=(64, width)).astype(np.float32) / 8
    centers = rng.normal(size=(classes, 64)).astype(np.float32) * 0.5
    labels = rng.integers(0, classes, rows).astype(np.int32)
    stored = np.lib.format.open_memmap(folder / ROWS_FILE, "w+", np.float16, (rows, width))
    for first in range(0, rows, BLOCK):
        known = labels[first : first + BLOCK]
        inner = centers[known] + rng.normal(size=(len(known), 64)).astype(np.float32)
        noise = rng.normal(size=(len(known), width)).astype(np.float32)
        stored[first : first + BLOCK] = np.maximum(inner @ axes + 0.5 * noise, 0)
    stored.flush()
    np.save(folder / LABELS_FILE, labels)


def fit_digits(folder: Path, settings: Settings) -> Fit:
    """Return `train_head` on `folder/features`; the result is its accuracy on validation."""
    from components.train_head.train_head import train_head
    from regraft_core.formats.options.train_head import HeadOptions

    out = folder / f"head-{settings.seed}"

    def fit() -> Callable[[], float]:
        manifest = train_head(
            [folder / "features"], out, HeadOptions(levels="all", seed=settings.seed)
        )
        return lambda: manifest.validation_accuracy

    return fit


def fit_rows(folder: Path, settings: Settings) -> Fit:
    """Return the fit to the rows of `write_rows`; the result is its loss relative to convergence.

    The rows are read from disk in blocks, scaled by one factor as the features of a level are.
    """
    from regraft_core.training.linear_head.linear_classifier import Scaling
    from regraft_core.training.linear_head.linear_problem import Problem
    from regraft_core.training.linear_head.logistic_regression import prior_weights, solve

    def fit() -> Callable[[], float]:
        rows = np.load(folder / ROWS_FILE, mmap_mode="r")
        labels = np.load(folder / LABELS_FILE)
        mean, variance = _moments(rows)
        factor = np.full(len(mean), 1 / np.sqrt(variance.sum()), np.float32)
        targets = np.eye(int(labels.max()) + 1)[labels]
        squares = variance * np.square(factor.astype(np.float64))
        scaling = Scaling(mean.astype(np.float32), factor)
        problem = Problem([rows], targets, np.ones(len(rows)), squares, scaling)
        solved = solve(problem, PENALTY, prior_weights(targets, len(mean)))

        def relative_loss() -> float:
            start = np.vstack([solved.kernel, solved.bias])

            def loss(flat: Any) -> Any:
                return _loss(flat.reshape(start.shape), rows, labels, scaling)

            steps = {"maxiter": REFERENCE_STEPS, "ftol": 0.0, "gtol": 0.0}
            best = minimize(loss, start.ravel(), jac=True, method="L-BFGS-B", options=steps)
            return float(loss(start.ravel())[0] / best.fun)

        return relative_loss

    return fit


def _moments(rows: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and variance of each feature."""
    total, squares = np.zeros(rows.shape[1]), np.zeros(rows.shape[1])
    for first in range(0, len(rows), BLOCK):
        block = rows[first : first + BLOCK].astype(np.float32)
        total += block.sum(axis=0, dtype=np.float64)
        squares += np.square(block).sum(axis=0, dtype=np.float64)
    mean = total / len(rows)
    return mean, squares / len(rows) - np.square(mean)


def _loss(
    matrix: NDArray[np.float64], rows: NDArray[Any], labels: NDArray[np.int32], scaling: Any
) -> tuple[float, NDArray[np.float64]]:
    """Return the penalized mean cross-entropy and its gradient, in float64."""
    value, gradient = 0.0, np.zeros_like(matrix)
    for first in range(0, len(rows), BLOCK):
        block = scaling.apply(rows[first : first + BLOCK]).astype(np.float64)
        known = labels[first : first + BLOCK]
        logs = log_softmax(block @ matrix[:-1] + matrix[-1], axis=1)
        place = np.arange(len(known)), known
        value -= logs[place].sum()
        errors = np.exp(logs)
        errors[place] -= 1
        gradient[:-1] += block.T @ errors
        gradient[-1] += errors.sum(axis=0)
    gradient /= len(rows)
    gradient[:-1] += PENALTY * matrix[:-1]
    return value / len(rows) + PENALTY / 2 * np.square(matrix[:-1]).sum(), gradient.ravel()


HEADS: Mapping[str, Callable[[Path, Settings], Fit]] = {
    "head-time": fit_digits,
    "million": fit_rows,
}
