"""Which linear head suits the features: scalings and penalties, compared by cross-validation.

All rows of an image, which are its views, are in one fold. Candidates are compared by the log loss
of held-out images after temperature scaling, which depends less on chance than their accuracy does.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from threadpoolctl import threadpool_limits

from regraft_core.formats.options import HeadOptions, Objective
from regraft_core.runtime.step_reports import Clock, log_progress
from regraft_core.training.logistic_regression import (
    Axes,
    Problem,
    Scaling,
    Weights,
    principal_axes,
    prior_weights,
    solve,
)

Floats = NDArray[np.float64]
# Penalties from strong to weak, for scaled rows, whose mean square length is 1.
PENALTIES = tuple(10.0 ** (-1.5 - 0.7 * step) for step in range(9))
# Of a path of penalties, this many without a lower loss end it.
WORSE_PENALTIES = 2
DEFAULT_PENALTY = 1e-3
# The selection looks at a sample of this many rows; a limit on axes limits the time to find them.
SELECTION_ROWS, MAX_AXES = 6000, 3072
# Features whose variance is below this fraction of the mean are not scaled up any further.
VARIANCE_FLOOR = 1e-3
# Multiples of the logarithm of the class frequencies that an offset subtracts from the logits.
OFFSETS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
# Largest absolute logarithm of a temperature.
LOG_TEMPERATURES = 9.0
# Rows in memory as float32 up to this size, otherwise scaled anew in each step.
IN_MEMORY_BYTES = 1 << 30


@dataclass(frozen=True)
class HeadRows:
    """Training rows: stored features in parts of [m, width], and labels and images int [n].

    `images` numbers the image of each row: views of one image are never in two folds.
    `mean` and `variance` are those of the features, float32 [width]; `widths` those of the levels.
    """

    parts: Sequence[NDArray[Any]]
    labels: NDArray[np.int32]
    images: NDArray[np.int64]
    mean: NDArray[np.float32]
    variance: NDArray[np.float32]
    widths: Sequence[int]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        """Return the stored rows at sorted indices."""
        ends = np.cumsum([len(part) for part in self.parts])
        pieces = []
        for part, end in zip(self.parts, ends, strict=True):
            inside = indices[(indices >= end - len(part)) & (indices < end)]
            pieces.append(part[inside - (end - len(part))])
        return np.concatenate(pieces)


@dataclass(frozen=True)
class Trial:
    """One candidate: its mean log loss and accuracy on held-out images, at its temperature."""

    levels: str
    scaling: str
    penalty: float
    loss: float
    accuracy: float
    temperature: float


@dataclass(frozen=True)
class SolvedHead:
    """The chosen head: logits are `features @ kernel + bias + offset`, for unscaled features.

    The temperature is part of kernel and bias. `trials` are all candidates, the best first; none if
    no class has two images. `held_out` maps the names of objectives to their held-out values.
    """

    kernel: Floats
    bias: Floats
    offset: Floats
    levels: str
    scaling: str
    penalty: float
    folds: int
    trials: list[Trial] = field(default_factory=list)
    held_out: dict[str, float] = field(default_factory=dict)


def scalings(rows: HeadRows) -> dict[str, Scaling]:
    """Return the candidates: one scale for each level, and one for each feature.

    In both, all levels have the same mean square length, and the rows that of 1.
    """
    level: list[Floats] = []
    feature: list[Floats] = []
    first = 0
    for width in rows.widths:
        variance = rows.variance[first : first + width].astype(np.float64)
        floored = variance + VARIANCE_FLOOR * variance.mean()
        for factors, weights in ((level, np.ones(width)), (feature, 1.0 / (floored + 1e-30))):
            square = float((variance * weights).sum()) * len(rows.widths)
            factors.append(np.sqrt(weights / square) if square > 0 else np.zeros(width))
        first += width
    return {
        name: Scaling(rows.mean, np.concatenate(factors).astype(np.float32))
        for name, factors in (("level", level), ("feature", feature))
    }


def deal_folds(
    labels: NDArray[np.int32], images: NDArray[np.int64], folds: int, seed: int
) -> NDArray[np.int64]:
    """Return the fold of each row, [n]: each class is dealt to the folds, image by image."""
    distinct, first = np.unique(images, return_index=True)
    order = np.random.default_rng(seed).permutation(len(distinct))
    by_class = order[np.argsort(labels[first][order], kind="stable")]
    fold_of = np.empty(len(distinct), np.int64)
    fold_of[by_class] = np.arange(len(distinct)) % folds
    return fold_of[np.searchsorted(distinct, images)]


def fit_temperature(logits: Floats, labels: NDArray[np.int32]) -> float:
    """Return the temperature with the lowest smoothed loss; strong penalties need a small one."""

    def loss(log_inverse: float) -> float:
        return smoothed_loss(logits * math.exp(log_inverse), labels)

    found = minimize_scalar(loss, bounds=(-LOG_TEMPERATURES, LOG_TEMPERATURES), method="bounded")
    return math.exp(-found.x) if found.fun < loss(0.0) else 1.0


def log_loss(logits: Floats, labels: NDArray[np.int32]) -> float:
    """Return the mean cross-entropy of logits [n, k]."""
    return -float(log_softmax(logits, axis=1)[np.arange(len(labels)), labels].mean())


def smoothed_loss(logits: Floats, labels: NDArray[np.int32]) -> float:
    """Return the log loss with one image more, whose class is unknown (after Platt, 1999).

    Without it, the temperature of images that are all predicted correctly would be zero.
    """
    logs = log_softmax(logits, axis=1)
    known = logs[np.arange(len(labels)), labels].mean()
    return -float((len(labels) * known + logs.mean()) / (len(labels) + 1))


def score(objective: Objective, predicted: NDArray[Any], labels: NDArray[np.int32]) -> float:
    """Return the accuracy, the mean recall or the mean F1 of predictions, over the classes."""
    if objective == "accuracy":
        return float((predicted == labels).mean())
    present = np.unique(labels)
    hits = np.array([np.sum((labels == k) & (predicted == k)) for k in present])
    actual = np.array([np.sum(labels == k) for k in present])
    if objective == "balanced-accuracy":
        return float((hits / actual).mean())
    given = np.array([np.sum(predicted == k) for k in present])
    return float((2 * hits / (actual + given)).mean())


def choose_offset(
    objective: Objective, logits: Floats, labels: NDArray[np.int32], frequencies: Floats
) -> Floats:
    """Return the offset of the logits [k] that serves the objective best on held-out logits.

    It is a multiple of the logarithm of the class frequencies (logit adjustment, Menon et al.
    2021); none for accuracy, which the unweighted training serves already.
    """
    direction = -np.log(frequencies)
    direction -= direction.mean()
    if objective == "accuracy" or not len(labels):
        return np.zeros(len(frequencies))
    scores = [score(objective, (logits + m * direction).argmax(1), labels) for m in OFFSETS]
    return OFFSETS[int(np.argmax(scores))] * direction


def solve_head(
    candidates: Mapping[str, HeadRows], classes: int, class_weights: Sequence[float] | None,
    options: HeadOptions,
) -> SolvedHead:  # fmt: skip
    """Choose levels, scaling and penalty by cross-validation, then fit the head to all rows.

    One thread computes a fold: matrices this narrow gain nothing from several, and lose where other
    processes use the cores.
    """
    with threadpool_limits(1, "blas"):
        return _solve_head(candidates, classes, class_weights, options)


@dataclass(frozen=True)
class _Best:
    """The best candidate so far, and its held-out logits of the scored rows."""

    levels: str
    scaling: str
    penalty: float
    logits: Floats
    scaled: Scaling
    axes: Axes


def _solve_head(
    candidates: Mapping[str, HeadRows], classes: int, class_weights: Sequence[float] | None,
    options: HeadOptions,
) -> SolvedHead:  # fmt: skip
    first = next(iter(candidates.values()))
    targets = np.eye(classes)[first.labels]
    targets = targets * (1 - options.label_smoothing) + options.label_smoothing / classes
    weights = np.ones(len(first))
    if class_weights is not None:
        weights = np.array(class_weights)[first.labels]
    best: _Best | None = None
    trials: list[Trial] = []
    for levels, rows in candidates.items():
        for scaling in scalings(rows):
            tried = _try(levels, rows, scaling, targets, weights, options)
            if best is None or (tried[1] and tried[1][0].loss < min(t.loss for t in trials)):
                best = tried[0]
            trials += tried[1]
    assert best is not None
    trials.sort(key=lambda trial: trial.loss)
    if not trials:
        log_progress(
            f"head: penalty {best.penalty:.1e} without cross-validation, because no class has two "
            "images"
        )
    rows = candidates[best.levels]
    sample = _sample(rows, options.seed)
    penalty, temperature = best.penalty, trials[0].temperature if trials else 1.0
    if len(sample) < len(rows):
        # More rows need a weaker penalty of the mean loss, and are less certain of themselves.
        penalty = options.l2 or penalty * len(sample) / len(rows)
        temperature = 1.0
    fitted = _fit(rows, targets, weights, best.scaled, best.axes, penalty)
    frequencies = targets.mean(axis=0) + 1.0 / len(rows)
    known = rows.labels[_scored(rows, classes, options)]
    offset = choose_offset(options.optimize, best.logits, known, frequencies / frequencies.sum())
    adjusted = (best.logits + offset).argmax(axis=1)
    objectives: tuple[Objective, ...] = ("accuracy", "balanced-accuracy", "macro-f1")
    held_out: dict[str, float] = {}
    if len(known):
        held_out = {kind: score(kind, adjusted, known) for kind in objectives}
    return SolvedHead(
        kernel=fitted.kernel / temperature, bias=fitted.bias / temperature, offset=offset,
        levels=best.levels, scaling=best.scaling, penalty=penalty,
        folds=_folds(rows, options) if trials else 0, trials=trials, held_out=held_out,
    )  # fmt: skip


def _try(
    levels: str, rows: HeadRows, name: str, targets: Floats, weights: Floats, options: HeadOptions
) -> tuple[_Best, list[Trial]]:
    """Return the best head of one candidate and scaling, and its trials, the best first."""
    clock, classes = Clock(), targets.shape[1]
    sample, folds = _sample(rows, options.seed), _folds(rows, options)
    scaling = scalings(rows)[name]
    scaled = scaling.apply(rows.take(sample))
    axes = principal_axes(scaled)
    scored = np.searchsorted(sample, _scored(rows, classes, options))
    if not len(scored):
        penalty = options.l2 or DEFAULT_PENALTY
        return _Best(levels, name, penalty, np.empty((0, classes)), scaling, axes), []
    labels, images = rows.labels[sample], rows.images[sample]
    fold_of = deal_folds(labels, images, folds, options.seed)
    path = _Path(
        scaled @ axes.basis, targets[sample], weights[sample], axes.squares, fold_of, folds
    )
    penalties = (options.l2,) if options.l2 else PENALTIES
    trials, logits = _compare(path, labels, scored, (levels, name), penalties)
    log_progress(
        f"head: {levels}, one scale per {name}, {folds} folds: log loss {trials[0].loss:.4f}, "
        f"accuracy {trials[0].accuracy:.4f} at penalty {trials[0].penalty:.1e} "
        f"({clock.seconds:.1f} s)"
    )
    return _Best(levels, name, trials[0].penalty, logits, scaling, axes), trials


def _folds(rows: HeadRows, options: HeadOptions) -> int:
    return min(options.folds, len(np.unique(rows.images[_sample(rows, options.seed)])))


def _scored(rows: HeadRows, classes: int, options: HeadOptions) -> NDArray[np.int64]:
    """Return one sampled row of each image whose class has others, which alone can predict it."""
    sample = _sample(rows, options.seed)
    if _folds(rows, options) < 2:
        return np.empty(0, np.int64)
    labels = rows.labels[sample]
    _, first = np.unique(rows.images[sample], return_index=True)
    counts = np.bincount(labels[first], minlength=classes)
    return np.sort(sample[first[counts[labels[first]] > 1]])


def _sample(rows: HeadRows, seed: int) -> NDArray[np.int64]:
    """Return the sorted rows that the selection looks at: whole images, as many as it allows."""
    limit = SELECTION_ROWS if len(rows.mean) <= MAX_AXES else MAX_AXES
    if len(rows) <= limit:
        return np.arange(len(rows))
    distinct = np.unique(rows.images)
    count = max(limit * len(distinct) // len(rows), 1)
    chosen = np.random.default_rng(seed).permutation(distinct)[:count]
    return np.flatnonzero(np.isin(rows.images, chosen))


class _Path:
    """Fits of all folds from penalty to penalty, each from the last one's weights."""

    def __init__(
        self, rows: NDArray[np.float32], targets: Floats, weights: Floats, squares: Floats,
        fold_of: NDArray[np.int64], folds: int,
    ) -> None:  # fmt: skip
        self._rows, self._fold_of, self._shape = rows, fold_of, targets.shape
        self._problems = [
            Problem([rows[fold_of != k]], targets[fold_of != k], weights[fold_of != k], squares)
            for k in range(folds)
        ] if folds > 1 else []  # fmt: skip
        self._fits = [prior_weights(one.targets, rows.shape[1]) for one in self._problems]

    def held_out(self, penalty: float) -> Floats:
        """Fit all folds and return each row's logits by the fit that did not see it."""
        logits = np.empty(self._shape)

        def fit(k: int) -> None:
            problem = self._problems[k]
            self._fits[k] = solve(problem, penalty, self._fits[k])
            inside = self._fold_of == k
            logits[inside] = self._fits[k].logits(self._rows[inside])

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(fit, range(len(self._problems))))
        return logits


def _compare(
    path: _Path, labels: NDArray[np.int32], scored: NDArray[np.int64], names: tuple[str, str],
    penalties: Sequence[float],
) -> tuple[list[Trial], Floats]:  # fmt: skip
    """Return the trials, the best first, and the best one's held-out logits of scored rows."""
    trials: list[Trial] = []
    best, best_logits = -1, np.empty(0)
    for penalty in penalties:
        logits, known = path.held_out(penalty)[scored], labels[scored]
        temperature = fit_temperature(logits, known)
        logits /= temperature
        accuracy = score("accuracy", logits.argmax(axis=1), known)
        trials.append(Trial(*names, penalty, smoothed_loss(logits, known), accuracy, temperature))
        if best < 0 or trials[-1].loss < trials[best].loss:
            best, best_logits = len(trials) - 1, logits
        if len(trials) - 1 - best >= WORSE_PENALTIES:
            break
    return sorted(trials, key=lambda trial: trial.loss), best_logits


def _fit(
    rows: HeadRows, targets: Floats, weights: Floats, scaling: Scaling, axes: Axes, penalty: float
) -> Weights:
    """Fit the head to all rows and return it for unscaled features.

    The axes are those of the selection's rows. If they are too few for the span of all rows, the
    features themselves are the axes.
    """
    whole = min(len(rows), len(rows.mean)) > MAX_AXES
    squares = rows.variance.astype(np.float64) * np.square(scaling.factor.astype(np.float64))
    width = len(squares) if whole else len(axes.squares)
    start = prior_weights(targets, width)
    if whole:
        problem = Problem(rows.parts, targets, weights, squares, scaling)
    elif 4 * len(rows) * width <= IN_MEMORY_BYTES:
        coordinates = [scaling.apply(part) @ axes.basis for part in rows.parts]
        problem = Problem(coordinates, targets, weights, axes.squares)
    else:
        problem = Problem(rows.parts, targets, weights, axes.squares, scaling, axes)
    fitted = solve(problem, penalty, start)
    kernel = fitted.kernel if whole else axes.basis.astype(np.float64) @ fitted.kernel
    kernel = kernel * scaling.factor[:, None].astype(np.float64)
    return Weights(kernel, fitted.bias - scaling.shift.astype(np.float64) @ kernel)
