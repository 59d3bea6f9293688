"""The gate: pure arithmetic from evidence and thresholds to a verdict with its reasons.

Every comparison is written so that a NaN or a missing figure fails it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from components.evaluate.metrics.statistics import Comparison
from regraft_core.formats.manifests import Check
from regraft_core.formats.options import GateOptions

NO_CHAMPION = "no model in service yet: the absolute thresholds decide"


@dataclass(frozen=True)
class Evidence:
    """All that the gate looks at. A figure that could not be had is None (or NaN).

    `recalls` has one entry for every class of the dataset; `not_finite` counts the test images
    whose predictions are not numbers. `head_validation_accuracy` is what the chosen candidate had
    to reach on validation to be worth choosing, None where there is no head to compare with.
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
    champion: Comparison | None = None


@dataclass(frozen=True)
class Verdict:
    """Accepted or not, and every reason, passed or failed, in the order of their weight."""

    accepted: bool
    checks: tuple[Check, ...]


def apply_gate(evidence: Evidence, options: GateOptions) -> Verdict:
    """Hold the evidence against the thresholds; all checks must pass."""
    checks = (
        *_sound(evidence),
        _accuracy(evidence, options),
        *_floors(evidence, options),
        *_limits(evidence, options),
        *_champion(evidence.champion, options),
    )
    return Verdict(all(check.passed for check in checks), checks)


def _sound(evidence: Evidence) -> Iterator[Check]:
    yield Check(
        name="test images",
        expected="at least 1",
        received=str(evidence.images),
        passed=evidence.images >= 1,
    )
    if evidence.not_finite:
        received = f"{evidence.not_finite} of {evidence.images} are not numbers"
        yield Check(name="predictions", expected="numbers", received=received, passed=False)
    if evidence.head_validation_accuracy is not None:
        of = "what its head had on validation"
        yield _at_least("candidate", evidence.validation_accuracy,
                        evidence.head_validation_accuracy, of)  # fmt: skip


def _accuracy(evidence: Evidence, options: GateOptions) -> Check:
    if options.accuracy_rule == "lower_bound":
        value, of = evidence.accuracy_low, "lower bound of the 95 % interval"
    else:
        value, of = evidence.accuracy, "point estimate"
    check = _at_least("accuracy", value, options.min_accuracy, of)
    # A bound without its estimate, or the reverse, is not evidence.
    both = _known(evidence.accuracy) and _known(evidence.accuracy_low)
    return check.model_copy(update={"passed": check.passed and both})


def _floors(evidence: Evidence, options: GateOptions) -> Iterator[Check]:
    for name, floor in options.min_recall_by_class.items():
        if name not in evidence.recalls:
            received = f"no class of that name; classes: {', '.join(evidence.recalls)}"
            yield Check(
                name=f"recall of {name}",
                expected=f"at least {floor:.4g}",
                received=received,
                passed=False,
            )
    for name, recall in evidence.recalls.items():
        floor = options.min_recall_by_class.get(name, options.min_class_recall)
        if floor > 0:
            yield _at_least(f"recall of {name}", recall, floor, "share of its test images")


def _limits(evidence: Evidence, options: GateOptions) -> Iterator[Check]:
    if options.max_calibration_error < 1:
        yield _at_most(
            "calibration error", evidence.calibration_error, options.max_calibration_error, ""
        )
    if options.max_model_mb > 0:
        yield _at_most("model size", evidence.model_mb, options.max_model_mb, " MB")
    if options.max_latency_ms > 0:
        yield _at_most("latency", evidence.latency_ms, options.max_latency_ms, " ms per image")


def _champion(champion: Comparison | None, options: GateOptions) -> Iterator[Check]:
    policy, name = options.champion_policy, "champion"
    if champion is None:
        wanted = "better" if policy == "better" else "not worse"
        yield Check(
            name=name,
            expected=f"{wanted} than the model in service",
            received=NO_CHAMPION,
            passed=True,
        )
        return
    level = options.champion_significance
    seen = (
        f"{champion.difference:+.4f} ({champion.difference_low:+.4f} to "
        f"{champion.difference_high:+.4f}) against {champion.name} on {champion.images} "
        f"images, {champion.wins} won, {champion.losses} lost"
    )
    if policy == "better":
        yield Check(
            name=name,
            expected=f"better beyond noise (p < {level:.4g})",
            received=f"{seen}, p = {champion.p_better:.4g}",
            passed=champion.p_better < level and champion.difference > 0,
        )
    else:
        yield Check(
            name=name,
            expected=f"not worse beyond noise (p >= {level:.4g})",
            received=f"{seen}, p = {champion.p_worse:.4g}",
            passed=champion.p_worse >= level and champion.images > 0,
        )
    if options.champion_margin < 1:
        # Counted in images, so that a drop of just the margin passes whatever floats make of it.
        allowed = options.champion_margin * champion.images
        yield Check(
            name="champion margin",
            expected=f"a drop of at most {options.champion_margin:.4g}",
            received=f"{champion.difference:+.4f}",
            passed=champion.losses - champion.wins <= allowed + 1e-9,
        )


def _known(value: float | None) -> bool:
    return value is not None and value == value


def _at_least(name: str, value: float | None, limit: float, of: str) -> Check:
    return Check(
        name=name,
        expected=f"at least {limit:.4g} ({of})",
        received=_shown(value, limit),
        passed=value is not None and value >= limit,
    )


def _at_most(name: str, value: float | None, limit: float, unit: str) -> Check:
    return Check(
        name=name,
        expected=f"at most {limit:.4g}{unit}",
        received=_shown(value, limit, unit),
        passed=value is not None and value <= limit,
    )


def _shown(value: float | None, limit: float, unit: str = "") -> str:
    """Write a figure; with all its digits where the short form would hide the difference."""
    if not _known(value):
        return "no figure"
    short = f"{value:.4g}"
    if float(short) == limit != value:
        short = repr(float(value or 0.0))
    return short + unit
