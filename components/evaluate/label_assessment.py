"""From the logits of a model for several labels an image to metrics and a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from components.evaluate.assessment import (
    Assessment,
    Cost,
    LabelDetails,
    LabeledLogits,
    expand_rows,
    finite_values,
    select_finite,
)
from components.evaluate.gate.baseline import ClassCount, recall_bounds
from components.evaluate.gate.gate import NO_CHAMPION, Evidence, apply_gate
from components.evaluate.gate.label_checks import LabelEvidence
from components.evaluate.metrics.average_precision import chance_scores
from components.evaluate.metrics.calibration import error_of_bins, label_reliability
from components.evaluate.metrics.label_comparison import LabelComparison, compare_labels
from components.evaluate.metrics.multilabel import (
    LabelPredictions,
    measure_labels,
    precision_recall_points,
)
from components.evaluate.metrics.ood_score import OodScores, fit_ood_threshold
from regraft_core.formats.options.evaluate import GateOptions

Floats = NDArray[np.floating]
CURVE_POINTS = 80


@dataclass(frozen=True)
class ChampionScores:
    """The champion's probabilities of the test images, float [n, classes], in the same order.

    `dataset_digest` is that of its training dataset, None if unknown.
    """

    name: str
    probabilities: Floats
    dataset_digest: str | None = None


def assess_labels(
    test: LabeledLogits,
    thresholds: Sequence[float],
    classes: list[str],
    options: GateOptions,
    *,
    cost: Cost,
    champion: ChampionScores | None = None,
    ood_scores: OodScores | None = None,
) -> Assessment:
    """Measure a model for several labels an image on the test split, and apply the gate.

    Images with logits that are not finite fail the gate; the metrics exclude them.

    Args:
        test: logits and labels of the test images.
        thresholds: by class, the probability from which an image gets the label.
        classes: names in the order of the columns.
        options: of the gate.
        cost: of the model.
        champion: what to compare it with.
        ood_scores: of the model's detector.
    """
    usable, finite = select_finite(test)
    probabilities, true_labels = expit(usable.logits.astype(np.float32)), usable.true_labels == 1
    selected = probabilities >= np.array(thresholds, np.float32)
    predictions = LabelPredictions(probabilities, selected, true_labels)
    measured = measure_labels(predictions, usable.logits, classes, options.seed)
    ood = fit_ood_threshold(ood_scores, options.in_distribution_fraction) if ood_scores else None
    comparison = _compare(predictions, finite, champion, options.seed) if champion else None
    bins = label_reliability(probabilities, true_labels) if len(true_labels) else []
    bounds = recall_bounds(_class_counts(predictions, classes), together=False)
    chance = chance_scores(probabilities, true_labels, options.seed)
    values = measured.values | finite_values(
        {
            "chance_map": float(chance.mean()),
            "lowest_recall_high": bounds[0].high if bounds else None,
            "calibration_error": error_of_bins(bins) if bins else None,
            "ood_auroc": ood.auroc if ood else None,
            **_champion_metrics(comparison),
            "model_mb": cost.model_mb,
            "latency_ms": cost.latency_ms,
        }
    )
    evidence = Evidence(
        images=len(finite),
        accuracy=None,
        accuracy_low=None,
        recalls={row.name: row.recall for row in measured.per_class},
        not_finite=int(np.sum(~finite)),
        calibration_error=values.get("calibration_error"),
        champion=comparison,
        labels=LabelEvidence(values, float(chance.mean()), float(np.quantile(chance, 0.95))),
        recall_bounds=bounds,
        **vars(cost),
    )
    areas = predictions.ranking.average_precisions(np.ones((len(true_labels), 1)))[:, 0]
    return Assessment(
        verdict=apply_gate(evidence, options),
        metrics=replace(measured, values=values),
        temperature=1.0,
        probabilities=expand_rows(probabilities, finite, len(classes)),
        true_labels=test.true_labels,
        reliability_before=[],
        reliability_after=bins,
        ood=ood,
        comparison=comparison,
        labels=LabelDetails(
            [float(one) for one in thresholds],
            [float(area) if np.isfinite(area) else None for area in areas],
        ),
        notes=[
            *measured.notes,
            *([NO_CHAMPION] if comparison is None else []),
        ],
    )


def precision_recall_curves(
    assessment: Assessment, classes: Sequence[str]
) -> dict[str, list[tuple[float, float]]]:
    """Return at most `CURVE_POINTS` (recall, precision) of each class with a test image."""
    finite = np.isfinite(assessment.probabilities).all(axis=1)
    probabilities, true_labels = assessment.probabilities[finite], assessment.true_labels[finite]
    curves = {}
    for k in np.flatnonzero(true_labels.any(axis=0)).tolist():
        points = precision_recall_points(probabilities[:, k], true_labels[:, k] == 1)
        kept = np.unique(np.linspace(0, len(points) - 1, CURVE_POINTS).astype(int)).tolist()
        curves[classes[k]] = [points[index] for index in kept]
    return curves


def _compare(
    predictions: LabelPredictions, finite: NDArray[np.bool_], champion: ChampionScores, seed: int
) -> LabelComparison:
    others = champion.probabilities[finite]
    return compare_labels(
        predictions.probabilities, others, predictions.true_labels, champion.name, seed
    )


def _class_counts(predictions: LabelPredictions, classes: list[str]) -> list[ClassCount]:
    hits = (predictions.selected & predictions.true_labels).sum(axis=0).tolist()
    positives = predictions.true_labels.sum(axis=0).tolist()
    return [ClassCount(*row) for row in zip(classes, hits, positives, strict=True)]


def _champion_metrics(comparison: LabelComparison | None) -> dict[str, float | None]:
    if comparison is None:
        return {}
    return {
        "champion_map": comparison.champion_map,
        "champion_difference": comparison.difference,
        "champion_difference_low": comparison.difference_low,
        "champion_difference_high": comparison.difference_high,
    }
