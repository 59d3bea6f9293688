"""From what models said of images to figures and a verdict: arithmetic on arrays, no model."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from components.evaluate.gate.gate import NO_CHAMPION, Evidence, Verdict, apply_gate
from components.evaluate.metrics.calibration import (
    Bin,
    calibration_error,
    fit_temperature,
    probabilities_of,
    reliability,
)
from components.evaluate.metrics.classification import Figures, measure
from components.evaluate.metrics.ood_score import OodThreshold, fit_ood_threshold
from components.evaluate.metrics.statistics import Comparison, compare
from regraft_core.formats.options import GateOptions

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]
UNCALIBRATED = "temperature stays 1: validation data do not ask for another"


@dataclass(frozen=True)
class LabeledLogits:
    """A model's logits float [n, classes] on one split, with `true_labels` int [n]."""

    logits: Floats
    true_labels: Ints


@dataclass(frozen=True)
class ChampionResult:
    """Which test images the model in service has right, bool [n], in the same order.

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
    is, at `temperature`; NaN where the model gave no number. `true_labels` int [n].
    """

    verdict: Verdict
    figures: Figures
    temperature: float
    probabilities: Floats
    true_labels: Ints
    reliability_before: list[Bin]
    reliability_after: list[Bin]
    ood: OodThreshold | None
    comparison: Comparison | None
    notes: list[str] = field(default_factory=list)


def assess(
    validation: LabeledLogits,
    test: LabeledLogits,
    classes: list[str],
    options: GateOptions,
    *,
    cost: Cost,
    champion: ChampionResult | None = None,
    unfamiliar: Floats | None = None,
) -> Assessment:
    """Fit the temperature and the familiarity threshold on validation, measure and judge on test.

    Images with predictions that are not numbers fail the gate; the figures leave them out.
    """
    sound, _ = _finite(validation)
    tested, finite = _finite(test)
    temperature = fit_temperature(sound.logits, sound.true_labels)
    raw, served = probabilities_of(tested.logits), probabilities_of(tested.logits, temperature)
    measured = measure(served, tested.true_labels, classes)
    familiar = fit_ood_threshold(
        sound.logits, tested.logits, unfamiliar, options.in_distribution_fraction
    )
    comparison = _compared(test, finite, champion, options.seed) if champion else None
    metrics = (
        measured.metrics
        | _calibration_metrics(raw, served, tested.true_labels)
        | _familiar_metrics(familiar)
        | _champion_metrics(comparison)
        | _cost_metrics(cost)
    )
    figures = replace(measured, metrics=metrics)
    return Assessment(
        verdict=apply_gate(_evidence(figures, finite, cost, comparison), options),
        figures=figures,
        temperature=temperature,
        probabilities=_spread(served, finite, len(classes)),
        true_labels=test.true_labels,
        reliability_before=reliability(raw, tested.true_labels) if len(raw) else [],
        reliability_after=reliability(served, tested.true_labels) if len(raw) else [],
        ood=familiar,
        comparison=comparison,
        notes=[
            *measured.notes,
            *([UNCALIBRATED] if temperature == 1.0 else []),
            *([NO_CHAMPION] if comparison is None else []),
        ],
    )


def _finite(said: LabeledLogits) -> tuple[LabeledLogits, NDArray[np.bool_]]:
    """Return what was said in numbers, and of which images that is, bool [n]."""
    finite = np.asarray(np.isfinite(said.logits).all(axis=1))
    return LabeledLogits(said.logits[finite], said.true_labels[finite]), finite


def _compared(
    test: LabeledLogits, finite: NDArray[np.bool_], champion: ChampionResult, seed: int
) -> Comparison:
    right = finite & (_labels(test.logits) == test.true_labels)
    return compare(right, champion.right, champion.name, seed)


def _evidence(
    figures: Figures, finite: NDArray[np.bool_], cost: Cost, comparison: Comparison | None
) -> Evidence:
    return Evidence(
        images=len(finite),
        accuracy=figures.metrics.get("test_accuracy"),
        accuracy_low=figures.metrics.get("test_accuracy_low"),
        recalls={row.name: row.recall for row in figures.per_class},
        not_finite=int(np.sum(~finite)),
        calibration_error=figures.metrics.get("calibration_error"),
        champion=comparison,
        **asdict(cost),
    )


def _spread(rows: Floats, finite: NDArray[np.bool_], classes: int) -> Floats:
    """Put `rows` back in their places among all images; the others are NaN."""
    spread = np.full((len(finite), classes), np.nan)
    spread[finite] = rows
    return spread


def _labels(logits: Floats) -> Ints:
    return logits.argmax(axis=1) if len(logits) else np.empty(0, int)


def _familiar_metrics(familiar: OodThreshold | None) -> dict[str, float]:
    if familiar is None or familiar.auroc is None:
        return {}
    return {"unfamiliar_auroc": familiar.auroc}


def _calibration_metrics(raw: Floats, served: Floats, true_labels: Ints) -> dict[str, float]:
    """Return the calibration errors of probabilities as they were and as they will be served."""
    if not len(true_labels):
        return {}
    return {
        "calibration_error_before": calibration_error(raw, true_labels),
        "calibration_error": calibration_error(served, true_labels),
    }


def _cost_metrics(cost: Cost) -> dict[str, float]:
    return _known({"model_mb": cost.model_mb, "latency_ms": cost.latency_ms})


def _champion_metrics(comparison: Comparison | None) -> dict[str, float]:
    if comparison is None:
        return {}
    return _known(
        {
            "champion_accuracy": comparison.champion_accuracy,
            "champion_difference": comparison.difference,
            "champion_difference_low": comparison.difference_low,
            "champion_difference_high": comparison.difference_high,
            "champion_p_two_sided": comparison.p_two_sided,
        }
    )


def _known(values: dict[str, float | None]) -> dict[str, float]:
    """Return the figures that are numbers."""
    return {
        name: float(value)
        for name, value in values.items()
        if value is not None and np.isfinite(value)
    }
