"""Which linear head suits the features: levels, scaling, method and penalty, by cross-validation.

Ridge regression, which is quick, chooses the levels. Then discriminant analysis, which needs little
more, and logistic regression are fitted to them, and the head is the mean of those fits that
together have the lowest log loss on held-out images: a mean of linear classifiers is a linear
classifier.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax
from threadpoolctl import threadpool_limits

from regraft_core.formats.options.option_types import Objective
from regraft_core.formats.options.train_head import HeadOptions
from regraft_core.runtime.step_reports import Clock, log_progress
from regraft_core.training.linear_head.chosen_fits import MemberFits
from regraft_core.training.linear_head.head_rows import HeadRows
from regraft_core.training.linear_head.head_time import HeadTime
from regraft_core.training.linear_head.held_out_fits import (
    FitTask,
    HeldOutFit,
    Method,
    Trial,
    choose_levels,
    compare_fits,
    make_task,
)
from regraft_core.training.linear_head.held_out_scores import (
    choose_offset,
    fit_temperature,
    score,
    smoothed_loss,
)
from regraft_core.training.linear_head.linear_classifier import Weights
from regraft_core.training.linear_head.penalty_growth import (
    GrownPenalties,
    grow_in_time,
    grow_penalties,
)

Floats = NDArray[np.float64]
METHOD_NAMES: dict[Method, str] = {
    "ridge": "ridge regression",
    "discriminant": "discriminant analysis",
    "logistic": "logistic regression",
}
DEFAULT_PENALTY = 1e-3
# Levels, and then the fits on them, are compared on samples of this many rows.
SCREENING_ROWS, SELECTION_ROWS = 1500, 3000
# The fits on the larger sample take about so many times as long as all those on the smaller one.
SELECTION_COST = 6
# Fits in closed form of all rows take part if rows or features are not more than these.
MAX_EQUATIONS = 8192


@dataclass(frozen=True)
class SolvedHead:
    """The chosen head: logits are `features @ kernel + bias + offset`, for unscaled features.

    Kernel and bias are the mean of those of its `members`, and the temperature is part of them.
    The penalties of the members are those of `rows` rows. `trials` are all fits that were compared,
    the best first; none if no class has two images. `loss` is the held-out log loss, and `held_out`
    maps the names of objectives to their held-out values. `held_out_logits` [m, k], with offset,
    and `held_out_labels` [m] are those of the held-out images if the folds had all rows: fits of a
    sample are worse than the head. Otherwise they are empty. `grown` is the comparison of stronger
    penalties if the members were compared on a sample. `solutions` are logistic regressions of
    scaled features by the name of the scaling, from which fits of similar rows start.
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
    held_out_logits: Floats = field(default_factory=lambda: np.empty((0, 0)))
    held_out_labels: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    grown: GrownPenalties | None = None
    solutions: Mapping[str, Weights] = field(default_factory=dict)


def solve_head(
    candidates: Mapping[str, HeadRows], classes: int, class_weights: Sequence[float] | None,
    options: HeadOptions, time: HeadTime | None = None,
) -> SolvedHead:  # fmt: skip
    """Choose a head by cross-validation among levels, given by name, and fit it to all rows.

    With a penalty in the options, the head is a logistic regression with that penalty. One thread
    computes a fit: matrices this narrow gain nothing from several, and lose where other processes
    use the cores. With a time, fits are compared on fewer rows and the head is fitted to fewer, as
    far as needed; each fit is solved to its end.
    """
    clock, first = Clock(), next(iter(candidates.values()))
    task = make_task(first, classes, class_weights, options, SELECTION_ROWS)
    with threadpool_limits(1, "blas"):
        if not len(task.scored):
            return _without_folds(candidates, task, options)
        screening = make_task(first, classes, class_weights, options, SCREENING_ROWS)
        levels, screened = choose_levels(candidates, screening)
        rows = candidates[levels]
        if time is not None and SELECTION_COST * clock.seconds > time.left_s:
            task = screening
            if len(task.sample) < min(len(rows), SELECTION_ROWS):
                time.skipped.append(f"comparisons on more than {len(task.sample)} rows")
        fits = compare_fits(rows, levels, task, options)
        _log([*screened, *fits])
        best = best_mean(_eligible(fits, rows, options), task.known)
        starts = {fit.trial.scaling: fit.solution for fit in fits if fit.solution is not None}
        fitted, solutions, grown = _fit_members(
            rows, task, class_weights, options, best.members, starts, time
        )
    members, temperature = best.members, best.temperature
    if grown is not None:
        members, temperature = grown.members, grown.temperature
    log_progress(f"head: chosen and fitted in {clock.seconds:.1f} s")
    frequencies = task.targets.mean(axis=0) + 1.0 / len(task.targets)
    frequencies /= frequencies.sum()
    offset = choose_offset(options.optimize, best.logits, task.known, frequencies)
    adjusted = best.logits + offset
    predicted, scored = adjusted.argmax(axis=1), len(task.known)
    kept = scored if len(task.sample) == len(rows) else 0
    objectives: tuple[Objective, ...] = ("accuracy", "balanced-accuracy", "macro-f1")
    return SolvedHead(
        kernel=fitted.kernel / temperature, bias=fitted.bias / temperature, offset=offset,
        levels=levels, members=members, rows=len(task.sample), folds=task.folds,
        temperature=temperature, loss=best.loss, grown=grown, solutions=solutions,
        trials=sorted((fit.trial for fit in (*screened, *fits)), key=lambda trial: trial.loss),
        held_out={kind: score(kind, predicted, task.known) for kind in objectives},
        held_out_logits=adjusted[:kept], held_out_labels=task.known[:kept],
    )  # fmt: skip


def _fit_members(
    rows: HeadRows, task: FitTask, class_weights: Sequence[float] | None, options: HeadOptions,
    members: Sequence[Trial], starts: Mapping[str, Weights], time: HeadTime | None,
) -> tuple[Weights, Mapping[str, Weights], GrownPenalties | None]:  # fmt: skip
    """Fit the chosen members to all rows, or to as many as there is time for.

    Returns:
        The classifier, without the temperature, the solutions to start further fits from, and the
        comparison of stronger penalties if the members were compared on a sample.
    """
    classes, compared, grown = task.targets.shape[1], len(task.sample), None
    if compared < len(rows):
        given = rows, classes, class_weights, options, members, compared, starts
        if time is not None:
            grown = grow_in_time(*given, time)
            return grown.weights, grown.solutions, grown
        grown = grow_penalties(*given)
        members, starts = grown.members, grown.solutions
    clock = Clock()
    fits = MemberFits(rows, task, starts)
    fitted = fits.mean(members, compared)
    if time is not None:
        time.measure(len(rows), clock.seconds)
    return fitted, fits.solutions, grown


def fit_again(
    solved: SolvedHead, rows: HeadRows, class_weights: Sequence[float] | None, options: HeadOptions
) -> Weights:
    """Fit the members of a chosen head to other rows of its levels, as `solve_head` does."""
    task = make_task(rows, len(solved.offset), class_weights, options, SELECTION_ROWS)
    with threadpool_limits(1, "blas"):
        fitted = MemberFits(rows, task, solved.solutions).mean(solved.members, solved.rows)
    return Weights(fitted.kernel / solved.temperature, fitted.bias / solved.temperature)


def held_out_losses(rows: HeadRows, classes: int, options: HeadOptions) -> Floats:
    """Return the log loss of each image by the best head on these rows that saw none of its rows.

    Images of a class of one are missing, and the others of a group of near duplicates.
    """
    task = make_task(rows, classes, None, options, len(rows))
    with threadpool_limits(1, "blas"):
        best = best_mean(compare_fits(rows, "", task, options), task.known)
    losses: Floats = -log_softmax(best.logits, axis=1)[np.arange(len(task.known)), task.known]
    return losses


def _without_folds(
    candidates: Mapping[str, HeadRows], task: FitTask, options: HeadOptions
) -> SolvedHead:
    levels, rows = next(iter(candidates.items()))
    nan = float("nan")
    trial = Trial(
        levels, "level", "logistic", options.l2 or DEFAULT_PENALTY, nan, nan, 1.0, len(rows),
        nan, nan,
    )  # fmt: skip
    fitted = MemberFits(rows, task).fit(trial)
    log_progress(
        f"head: penalty {trial.penalty:.1e} without cross-validation, because no class has two "
        "images"
    )
    offset = np.zeros(task.targets.shape[1])
    return SolvedHead(fitted.kernel, fitted.bias, offset, levels, [trial], len(rows), folds=0)


def _log(fits: Sequence[HeldOutFit]) -> None:
    for trial in (fit.trial for fit in fits):
        method = METHOD_NAMES[trial.method]
        log_progress(
            f"head: {trial.levels}, one scale per {trial.scaling}, {method}: log "
            f"loss {trial.loss:.4f}, accuracy {trial.accuracy:.4f} at penalty {trial.penalty:.1e}"
        )


def _eligible(fits: Sequence[HeldOutFit], rows: HeadRows, options: HeadOptions) -> list[HeldOutFit]:
    """Return the fits that all rows can have; the last is the logistic regression."""
    if options.l2 or min(len(rows), len(rows.mean)) > MAX_EQUATIONS:
        return [fits[-1]]
    return list(fits)


@dataclass(frozen=True)
class MeanFit:
    """The mean of some fits, and its held-out logits and their loss at its temperature."""

    members: list[Trial]
    logits: Floats
    temperature: float
    loss: float


def best_mean(fits: Sequence[HeldOutFit], labels: NDArray[np.int32]) -> MeanFit:
    """Return the mean of those fits that together have the lowest held-out loss."""
    found = []
    for size in range(1, len(fits) + 1):
        for members in combinations(fits, size):
            logits = np.mean([member.logits for member in members], axis=0)
            temperature = fit_temperature(logits, labels)
            logits = logits / temperature
            trials = [member.trial for member in members]
            found.append(MeanFit(trials, logits, temperature, smoothed_loss(logits, labels)))
    return min(found, key=lambda mean: mean.loss)
