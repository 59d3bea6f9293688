"""From what models said of pictures to figures and a verdict: arithmetic on arrays, no model."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.core.options import GateOptions
from components.evaluate.calibration import (
    Bin,
    calibration_error,
    fit_temperature,
    probabilities_of,
    reliability,
)
from components.evaluate.gate import NO_CHAMPION, Evidence, Verdict, judge
from components.evaluate.metrics import Figures, measure
from components.evaluate.statistics import Comparison, compare
from components.evaluate.unfamiliar import Familiarity, familiarity

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]


@dataclass(frozen=True)
class Said:
    """What a model said of one split: logits float [n, classes] and truths int [n]."""

    logits: Floats
    truths: Ints


@dataclass(frozen=True)
class ChampionSaid:
    """Which test pictures the model in service has right, bool [n], in the same order.

    `dataset_digest` is that of the dataset it learned from, where known.
    """

    name: str
    right: NDArray[np.bool_]
    dataset_digest: str | None = None


@dataclass(frozen=True)
class Cost:
    """What the chosen model costs, and what it had to reach on validation; None: not known."""

    model_mb: float | None = None
    latency_ms: float | None = None
    validation_accuracy: float | None = None
    head_validation_accuracy: float | None = None


@dataclass(frozen=True)
class Assessment:
    """All that evaluation finds out about the chosen model.

    `probabilities` float64 [n, classes] are those of the test split as they will be served, that
    is, at `temperature`; NaN where the model gave no number. `truths` int [n].
    """

    verdict: Verdict
    figures: Figures
    temperature: float
    probabilities: Floats
    truths: Ints
    reliability_before: list[Bin]
    reliability_after: list[Bin]
    familiarity: Familiarity | None
    comparison: Comparison | None
    notes: list[str] = field(default_factory=list)


def assess(
    validation: Said,
    test: Said,
    classes: list[str],
    options: GateOptions,
    *,
    cost: Cost,
    champion: ChampionSaid | None = None,
    unfamiliar: Floats | None = None,
) -> Assessment:
    """Fit the temperature and the familiarity threshold on validation, measure and judge on test.

    Pictures with predictions that are not numbers fail the gate; the figures leave them out.
    """
    known = np.isfinite(validation.logits).all(axis=1)
    sound = Said(validation.logits[known], validation.truths[known])
    finite = np.asarray(np.isfinite(test.logits).all(axis=1))
    tested = Said(test.logits[finite], test.truths[finite])
    temperature = fit_temperature(sound.logits, sound.truths)
    raw, served = probabilities_of(tested.logits), probabilities_of(tested.logits, temperature)
    figures = measure(served, tested.truths, classes)
    metrics = dict(figures.metrics)
    notes = list(figures.notes)
    if len(tested.truths):
        metrics["calibration_error_before"] = calibration_error(raw, tested.truths)
        metrics["calibration_error"] = calibration_error(served, tested.truths)
    if temperature == 1.0:
        notes.append("temperature stays 1: validation data do not ask for another")
    familiar = familiarity(sound.logits, tested.logits, unfamiliar, options.familiar_share)
    metrics |= _familiar_metrics(familiar)
    comparison = None
    if champion is not None:
        right = finite & (_labels(test.logits) == test.truths)
        comparison = compare(right, champion.right, champion.name, options.seed)
        metrics |= _champion_metrics(comparison)
    else:
        notes.append(NO_CHAMPION)
    metrics |= {
        name: value
        for name, value in (("model_mb", cost.model_mb), ("latency_ms", cost.latency_ms))
        if value is not None and np.isfinite(value)
    }
    evidence = Evidence(
        pictures=len(test.truths),
        accuracy=metrics.get("test_accuracy"),
        accuracy_low=metrics.get("test_accuracy_low"),
        recalls={row.name: row.recall for row in figures.per_class},
        not_finite=int(np.sum(~finite)),
        calibration_error=metrics.get("calibration_error"),
        champion=comparison,
        **asdict(cost),
    )
    return Assessment(
        verdict=judge(evidence, options),
        figures=Figures(metrics, figures.per_class, figures.confusion, figures.notes),
        temperature=temperature,
        probabilities=_spread(served, finite, len(classes)),
        truths=test.truths,
        reliability_before=reliability(raw, tested.truths) if len(raw) else [],
        reliability_after=reliability(served, tested.truths) if len(raw) else [],
        familiarity=familiar,
        comparison=comparison,
        notes=notes,
    )


def _spread(rows: Floats, finite: NDArray[np.bool_], classes: int) -> Floats:
    """Put `rows` back in their places among all pictures; the others are NaN."""
    spread = np.full((len(finite), classes), np.nan)
    spread[finite] = rows
    return spread


def _labels(logits: Floats) -> Ints:
    return logits.argmax(axis=1) if len(logits) else np.empty(0, int)


def _familiar_metrics(familiar: Familiarity | None) -> dict[str, float]:
    if familiar is None or familiar.auroc is None:
        return {}
    return {"unfamiliar_auroc": familiar.auroc}


def _champion_metrics(comparison: Comparison) -> dict[str, float]:
    values: dict[str, Any] = {
        "champion_accuracy": comparison.champion_accuracy,
        "champion_difference": comparison.difference,
        "champion_difference_low": comparison.difference_low,
        "champion_difference_high": comparison.difference_high,
        "champion_p_two_sided": comparison.p_two_sided,
    }
    return {name: float(value) for name, value in values.items() if np.isfinite(value)}
