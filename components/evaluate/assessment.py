"""From the logits of models to metrics and a verdict: arithmetic on arrays, without a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from components.evaluate.gate.baseline import (
    ClassCount,
    baseline_metrics,
    compare_with_constant,
    recall_bounds,
)
from components.evaluate.gate.gate import NO_CHAMPION, Evidence, Verdict, apply_gate
from components.evaluate.metrics.abstention import Abstention, measure_abstention
from components.evaluate.metrics.calibration import (
    Bin,
    calibration_error,
    choose_temperature,
    reliability,
    to_probabilities,
    to_served,
)
from components.evaluate.metrics.classification import SplitMetrics, measure_predictions
from components.evaluate.metrics.held_out import HeldOut
from components.evaluate.metrics.label_comparison import LabelComparison
from components.evaluate.metrics.ood_score import OodScores, OodThreshold, fit_ood_threshold
from components.evaluate.metrics.prediction_sets import PredictionSets, measure_sets
from components.evaluate.metrics.robustness import CorruptionDrop, corruption_metrics
from components.evaluate.metrics.slices import (
    NO_LABEL,
    SliceMetrics,
    measure_slices,
    metrics_by_slice,
    untested_slices,
)
from components.evaluate.metrics.statistics import Comparison, compare
from regraft_core.formats.options.evaluate import GateOptions

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]
UNCALIBRATED = "the temperature stays 1: no other value significantly improves the validation loss"


@dataclass(frozen=True)
class Slices:
    """The columns of slices, and the values of each image, in the order of the columns.

    `known` are the values of the whole dataset by column.
    """

    columns: Sequence[str] = ()
    values: Sequence[Sequence[str]] = ()
    known: Mapping[str, Iterable[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class LabeledLogits:
    """A model's logits float [n, classes] on one split, with `true_labels` int [n] and slices.

    With several labels an image, `true_labels` are 0 or 1, int [n, classes].
    """

    logits: Floats
    true_labels: Ints
    slices: Slices = Slices()


@dataclass(frozen=True)
class ChampionResult:
    """Whether the champion predicts each test image correctly, bool [n], in the same order.

    `dataset_digest` is that of its training dataset, None if unknown.
    """

    name: str
    correct: NDArray[np.bool_]
    dataset_digest: str | None = None


@dataclass(frozen=True)
class Cost:
    """Cost of the chosen model, and its validation accuracies; None if unknown.

    `head_validation_accuracy` is what the model had to reach to be chosen. `corruption_drops` are
    what corrupted images cost in accuracy, if it was measured.
    """

    model_mb: float | None = None
    latency_ms: float | None = None
    validation_accuracy: float | None = None
    head_validation_accuracy: float | None = None
    corruption_drops: Sequence[CorruptionDrop] = ()


@dataclass(frozen=True)
class LabelDetails:
    """By class, what only a model for several labels an image has.

    Those are the thresholds of its labels, and the average precisions, None without a test image.
    """

    thresholds: list[float]
    average_precisions: list[float | None]


@dataclass(frozen=True)
class Assessment:
    """The result of an evaluation of the chosen model.

    `probabilities` float64 [n, classes] are those of the test split at `temperature`, as they will
    be served; NaN if a logit is not finite. `true_labels` are int [n], or with several labels an
    image, for which there are `labels`, int [n, classes].
    """

    verdict: Verdict
    metrics: SplitMetrics
    temperature: float
    probabilities: Floats
    true_labels: Ints
    reliability_before: list[Bin]
    reliability_after: list[Bin]
    ood: OodThreshold | None
    comparison: Comparison | LabelComparison | None
    labels: LabelDetails | None = None
    prediction_sets: PredictionSets | None = None
    abstention: Abstention | None = None
    slices: list[SliceMetrics] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def assess(
    validation: LabeledLogits,
    test: LabeledLogits,
    classes: list[str],
    options: GateOptions,
    *,
    cost: Cost,
    champion: ChampionResult | None = None,
    ood_scores: OodScores | None = None,
    out_of_fold: LabeledLogits | None = None,
) -> Assessment:
    """Fit temperature and OOD threshold on validation, measure on test, and apply the gate.

    `out_of_fold` are logits of train images by fits that did not see them; they and validation set
    the thresholds of sets and abstention. Images with logits that are not finite fail the gate; the
    metrics exclude them.
    """
    finite_validation, _ = select_finite(validation)
    finite_test, finite = select_finite(test)
    temperature = choose_temperature(finite_validation.logits, finite_validation.true_labels)
    raw = to_probabilities(finite_test.logits)
    served = to_probabilities(finite_test.logits, temperature)
    measured = measure_predictions(served, finite_test.true_labels, classes)
    ood = fit_ood_threshold(ood_scores, options.in_distribution_fraction) if ood_scores else None
    held_out = _held_out(finite_validation, out_of_fold, temperature)
    tested = to_served(finite_test.logits, temperature), finite_test.true_labels
    sets = measure_sets(held_out, *tested, options.coverage) if options.coverage else None
    abstention = (
        measure_abstention(held_out, *tested, options.abstain_precision)
        if options.abstain_precision
        else None
    )
    comparison = _compare(test, finite, champion, options.seed) if champion else None
    by_slice = _measure_slices(test, finite, classes)
    untested = untested_slices(test.slices.known, by_slice)
    counts = _class_counts(measured)
    baseline, bounds = compare_with_constant(counts, options.optimize), recall_bounds(counts)
    values = (
        measured.values
        | dict(baseline_metrics(baseline, bounds))
        | _calibration_metrics(raw, served, finite_test.true_labels)
        | finite_values({"ood_auroc": ood.auroc if ood else None})
        | _champion_metrics(comparison)
        | _threshold_metrics(sets, abstention)
        | dict(metrics_by_slice(by_slice))
        | dict(corruption_metrics(cost.corruption_drops))
        | finite_values({"model_mb": cost.model_mb, "latency_ms": cost.latency_ms})
    )
    metrics = replace(measured, values=values)
    evidence = replace(
        _evidence(metrics, finite, cost, comparison), baseline=baseline, recall_bounds=bounds,
        prediction_sets=sets, abstention=abstention, slices=by_slice,
        untested_slices=untested,
    )  # fmt: skip
    return Assessment(
        verdict=apply_gate(evidence, options),
        metrics=metrics,
        temperature=temperature,
        probabilities=expand_rows(served, finite, len(classes)),
        true_labels=test.true_labels,
        reliability_before=reliability(raw, finite_test.true_labels) if len(raw) else [],
        reliability_after=reliability(served, finite_test.true_labels) if len(raw) else [],
        ood=ood,
        comparison=comparison,
        prediction_sets=sets,
        abstention=abstention,
        slices=by_slice,
        notes=[
            *measured.notes,
            *(
                f"slices without a test image: {len(untested)}, such as {one}"
                for one in untested[:1]
            ),
            *([UNCALIBRATED] if temperature == 1.0 else []),
            *([NO_CHAMPION] if comparison is None else []),
        ],
    )


def select_finite(labeled: LabeledLogits) -> tuple[LabeledLogits, NDArray[np.bool_]]:
    """Return the images whose logits are all finite, and which images these are, bool [n]."""
    finite = np.asarray(np.isfinite(labeled.logits).all(axis=1))
    return LabeledLogits(labeled.logits[finite], labeled.true_labels[finite]), finite


def _held_out(
    validation: LabeledLogits, out_of_fold: LabeledLogits | None, temperature: float
) -> HeldOut:
    """Return the probabilities that set thresholds, of all images that the model may be tested on.

    Args:
        validation: with finite logits.
        out_of_fold: of train, if there are any.
        temperature: of the softmax.
    """
    if out_of_fold is None or not len(out_of_fold.true_labels):
        probabilities = to_served(validation.logits, temperature)
        return HeldOut(probabilities, validation.true_labels, "validation")
    logits = np.concatenate([out_of_fold.logits, validation.logits])
    labels = np.concatenate([out_of_fold.true_labels, validation.true_labels])
    return HeldOut(to_served(logits, temperature), labels, "out-of-fold")


def _compare(
    test: LabeledLogits, finite: NDArray[np.bool_], champion: ChampionResult, seed: int
) -> Comparison:
    correct = _predicted(test, finite) == test.true_labels
    return compare(correct, champion.correct, champion.name, seed)


def _measure_slices(
    test: LabeledLogits, finite: NDArray[np.bool_], classes: list[str]
) -> list[SliceMetrics]:
    columns, values = test.slices.columns, test.slices.values
    return measure_slices(columns, values, _predicted(test, finite), test.true_labels, classes)


def _predicted(test: LabeledLogits, finite: NDArray[np.bool_]) -> Ints:
    """Return the predicted labels int [n], `NO_LABEL` for images that are not finite."""
    predicted = test.logits.argmax(axis=1) if len(test.logits) else np.empty(0, int)
    return np.where(finite, predicted, NO_LABEL)


def _evidence(
    metrics: SplitMetrics, finite: NDArray[np.bool_], cost: Cost, comparison: Comparison | None
) -> Evidence:
    return Evidence(
        images=len(finite),
        accuracy=metrics.values.get("test_accuracy"),
        accuracy_low=metrics.values.get("test_accuracy_low"),
        recalls={row.name: row.recall for row in metrics.per_class},
        not_finite=int(np.sum(~finite)),
        calibration_error=metrics.values.get("calibration_error"),
        champion=comparison,
        **vars(cost),
    )


def _class_counts(metrics: SplitMetrics) -> list[ClassCount]:
    return [
        ClassCount(
            row.name, metrics.confusion[k][k], row.support, sum(r[k] for r in metrics.confusion)
        )
        for k, row in enumerate(metrics.per_class)
    ]


def expand_rows(rows: Floats, finite: NDArray[np.bool_], classes: int) -> Floats:
    """Return a row for each image, NaN for those that are not finite."""
    expanded = np.full((len(finite), classes), np.nan)
    expanded[finite] = rows
    return expanded


def _calibration_metrics(raw: Floats, served: Floats, true_labels: Ints) -> dict[str, float]:
    """Return the calibration errors before and after temperature scaling."""
    if not len(true_labels):
        return {}
    return {
        "calibration_error_before": calibration_error(raw, true_labels),
        "calibration_error": calibration_error(served, true_labels),
    }


def _champion_metrics(comparison: Comparison | None) -> dict[str, float]:
    if comparison is None:
        return {}
    return finite_values(
        {
            "champion_accuracy": comparison.champion_accuracy,
            "champion_difference": comparison.difference,
            "champion_difference_low": comparison.difference_low,
            "champion_difference_high": comparison.difference_high,
            "champion_p_two_sided": comparison.p_two_sided,
        }
    )


def _threshold_metrics(
    sets: PredictionSets | None, abstention: Abstention | None
) -> dict[str, float]:
    values: dict[str, float | None] = {}
    if sets is not None:
        values |= {"set_coverage": sets.test_coverage, "mean_set_size": sets.mean_size}
    if abstention is not None and abstention.test_images:
        values["accepted_fraction"] = abstention.accepted / abstention.test_images
        values["accepted_precision"] = abstention.test_precision
    return finite_values(values)


def finite_values(values: dict[str, float | None]) -> dict[str, float]:
    """Return the values that are available."""
    return {
        name: float(value)
        for name, value in values.items()
        if value is not None and np.isfinite(value)
    }
