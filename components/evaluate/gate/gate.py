"""The gate: pure arithmetic from evidence and thresholds to a verdict and its checks.

Every comparison is written so that a NaN or a missing metric fails it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from components.evaluate.gate.baseline import BASELINE, OBJECTIVE_NAMES, Baseline, RecallBound
from components.evaluate.gate.label_checks import LabelEvidence, check_labels
from components.evaluate.gate.limits import at_least, at_most, format_value, is_known
from components.evaluate.gate.slice_check import check_slices
from components.evaluate.gate.threshold_checks import check_abstention, check_sets
from components.evaluate.metrics.abstention import Abstention
from components.evaluate.metrics.label_comparison import LabelComparison
from components.evaluate.metrics.prediction_sets import PredictionSets
from components.evaluate.metrics.robustness import CorruptionDrop, mean_drops
from components.evaluate.metrics.slices import SliceMetrics
from components.evaluate.metrics.statistics import Comparison
from regraft_core.formats.manifests.evaluation import Check
from regraft_core.formats.options.evaluate import GateOptions

NO_CHAMPION = "no champion yet: only the absolute thresholds apply"
RECALL_FLOOR = "recall floor"
DEFAULT_RULE = BASELINE, RECALL_FLOOR
SHOWN_CLASSES = 5


@dataclass(frozen=True)
class Evidence:
    """The input of the gate. An unavailable metric is None (or NaN).

    `recalls` has one entry for every class of the dataset; `not_finite` counts the test images
    with predictions that are not finite. `head_validation_accuracy` is what the chosen candidate
    must reach on validation, None without a head to compare with. `recall_bounds` are sorted, the
    lowest first. With several labels an image, `labels` replaces accuracy and baseline.
    """

    images: int
    accuracy: float | None
    accuracy_low: float | None
    recalls: Mapping[str, float | None] = field(default_factory=dict)
    not_finite: int = 0
    validation_accuracy: float | None = None
    head_validation_accuracy: float | None = None
    calibration_error: float | None = None
    model_mb: float | None = None
    latency_ms: float | None = None
    champion: Comparison | LabelComparison | None = None
    labels: LabelEvidence | None = None
    baseline: Baseline | None = None
    recall_bounds: Sequence[RecallBound] = ()
    prediction_sets: PredictionSets | None = None
    abstention: Abstention | None = None
    slices: Sequence[SliceMetrics] = ()
    untested_slices: Sequence[str] = ()
    corruption_drops: Sequence[CorruptionDrop] = ()


@dataclass(frozen=True)
class Verdict:
    """Whether the model is accepted, and all checks, the most important first."""

    accepted: bool
    checks: tuple[Check, ...]


def apply_gate(evidence: Evidence, options: GateOptions) -> Verdict:
    """Compare the evidence with the thresholds; all checks must pass."""
    checks = (
        *_check_predictions(evidence),
        *_check_scores(evidence, options),
        *_check_recall_floor(evidence.recall_bounds, options),
        *_check_recalls(evidence, options),
        *check_slices(evidence.slices, options.min_accuracy_by_slice, evidence.untested_slices),
        *_check_limits(evidence, options),
        *check_sets(evidence.prediction_sets),
        *check_abstention(evidence.abstention),
        *_check_champion(evidence.champion, options),
    )
    return Verdict(all(check.passed for check in checks), checks)


def _check_predictions(evidence: Evidence) -> Iterator[Check]:
    yield Check(
        name="test images",
        expected="at least 1",
        received=str(evidence.images),
        passed=evidence.images >= 1,
    )
    if evidence.not_finite:
        received = f"{evidence.not_finite} of {evidence.images} are not finite"
        yield Check(name="predictions", expected="finite numbers", received=received, passed=False)
    if evidence.head_validation_accuracy is not None:
        what = "validation accuracy of its head"
        yield at_least("candidate", evidence.validation_accuracy,
                        evidence.head_validation_accuracy, what)  # fmt: skip


def _check_scores(evidence: Evidence, options: GateOptions) -> Iterator[Check]:
    if evidence.labels is not None:
        yield from check_labels(evidence.labels, options)
        return
    yield _check_accuracy(evidence, options)
    yield from _check_baseline(evidence.baseline, options)


def _check_accuracy(evidence: Evidence, options: GateOptions) -> Check:
    if options.accuracy_rule == "lower_bound":
        value, what = evidence.accuracy_low, "lower bound of the 95% interval"
    else:
        value, what = evidence.accuracy, "point estimate"
    check = at_least("accuracy", value, options.min_accuracy, what)
    # A bound without its estimate, or the reverse, is not evidence.
    both = is_known(evidence.accuracy) and is_known(evidence.accuracy_low)
    return check.model_copy(update={"passed": check.passed and both})


def _check_baseline(baseline: Baseline | None, options: GateOptions) -> Iterator[Check]:
    """Yield the check that the score is above that of the best constant prediction.

    If these test images are too few to show it even without an error, the score itself decides.
    """
    if options.baseline_rule == "off":
        return
    if baseline is None or math.isnan(baseline.score):
        yield Check(name=BASELINE, expected="above the best constant prediction",
                    received="not available", passed=False)  # fmt: skip
        return
    limit = baseline.constant_score
    by_bound = options.baseline_rule == "lower_bound" and baseline.perfect_low > limit
    value = baseline.score_low if by_bound else baseline.score
    what = OBJECTIVE_NAMES[baseline.objective]
    if by_bound:
        kind = f"one-sided 95% lower bound of the {what}"
    elif options.baseline_rule == "lower_bound":
        kind = f"{what}; too few test images for a bound"
    else:
        kind = what
    yield Check(
        name=BASELINE,
        expected=f"above {limit:.4g} ({what} of always predicting {baseline.constant_class})",
        received=f"{format_value(value, limit)} ({kind})",
        passed=value > limit,
    )


def _check_recall_floor(bounds: Sequence[RecallBound], options: GateOptions) -> Iterator[Check]:
    """Yield one check over all classes; one with few test images cannot fail it by chance."""
    floor = options.recall_floor
    if floor == 0:
        return
    below = [bound for bound in bounds if not bound.high >= floor]
    shown = below[:SHOWN_CLASSES] if below else bounds[:1]
    received = "; ".join(
        f"{format_value(bound.high, floor)} ({bound.name}: {bound.correct} of {bound.images})"
        for bound in shown
    )
    if len(below) > len(shown):
        received += f"; and {len(below) - len(shown)} more"
    yield Check(
        name=RECALL_FLOOR,
        expected=f"upper bound of each recall at least {floor:.4g}",
        received=received or "not available",
        passed=bool(bounds) and not below,
    )


def _check_recalls(evidence: Evidence, options: GateOptions) -> Iterator[Check]:
    for name, minimum in options.min_recall_by_class.items():
        if name not in evidence.recalls:
            received = f"no class of this name; classes: {', '.join(evidence.recalls)}"
            yield Check(
                name=f"recall of {name}",
                expected=f"at least {minimum:.4g}",
                received=received,
                passed=False,
            )
    for name, recall in evidence.recalls.items():
        minimum = options.min_recall_by_class.get(name, options.min_class_recall)
        if minimum > 0:
            yield at_least(f"recall of {name}", recall, minimum, "fraction of its test images")


def _check_limits(evidence: Evidence, options: GateOptions) -> Iterator[Check]:
    if options.max_calibration_error < 1:
        yield at_most(
            "calibration error", evidence.calibration_error, options.max_calibration_error, ""
        )
    if options.max_model_mb > 0:
        yield at_most("model size", evidence.model_mb, options.max_model_mb, " MB")
    if options.max_latency_ms > 0:
        yield at_most("latency", evidence.latency_ms, options.max_latency_ms, " ms per image")
    if options.max_corruption_drop < 1:
        drops = mean_drops(evidence.corruption_drops)
        kind, drop = next(iter(drops.items()), ("corruption", None))
        yield at_most(f"accuracy drop by {kind}", drop, options.max_corruption_drop, "")


def _check_champion(
    champion: Comparison | LabelComparison | None, options: GateOptions
) -> Iterator[Check]:
    better, level = options.champion_policy == "better", options.champion_significance
    if champion is None:
        expected = f"{'better' if better else 'not worse'} than the champion"
        yield Check(name="champion", expected=expected, received=NO_CHAMPION, passed=True)
        return
    if better:
        yield Check(
            name="champion",
            expected=f"significantly better (p < {level:.4g})",
            received=f"{champion.summary}, p = {champion.p_better:.4g}",
            passed=champion.p_better < level,  # below 0.5, so there are more wins than losses
        )
    else:
        yield Check(
            name="champion",
            expected=f"not significantly worse (p >= {level:.4g})",
            received=f"{champion.summary}, p = {champion.p_worse:.4g}",
            passed=champion.p_worse >= level and champion.images > 0,
        )
    if options.champion_margin < 1:
        yield Check(
            name="champion margin",
            expected=f"a drop of at most {options.champion_margin:.4g}",
            received=f"{champion.difference:+.4f}",
            passed=champion.drops_at_most(options.champion_margin),
        )
