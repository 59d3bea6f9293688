"""Builds the evaluation manifest from an assessment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Literal

from components.evaluate.assessment import Assessment
from components.evaluate.gate.selection import Choice, list_results
from components.evaluate.metrics.robustness import CorruptionDrop
from regraft_core.formats.manifest_storage import MadeBy, digest_of
from regraft_core.formats.manifests.dataset import DatasetManifest
from regraft_core.formats.manifests.evaluation import EvaluationManifest
from regraft_core.formats.manifests.model import ModelManifest
from regraft_core.runtime.version import VERSION


def build_manifest(
    assessment: Assessment,
    manifests: Sequence[ModelManifest],
    choice: Choice,
    data: DatasetManifest,
    champion_dataset: str | None,
    seconds: float,
    corruption_drops: Sequence[CorruptionDrop] = (),
) -> EvaluationManifest:
    """Return the manifest of an assessment.

    Its digest covers the verdict, model and dataset, and what the exported model contains of the
    evaluation: with another threshold, the model is exported again.

    Args:
        assessment: of the chosen candidate.
        manifests: all candidates.
        choice: the chosen candidate.
        data: the dataset.
        champion_dataset: digest of the champion's training dataset, None if unknown.
        seconds: duration of the evaluation.
        corruption_drops: what corrupted images cost, if it was measured.
    """
    verdict, chosen = assessment.verdict, manifests[choice.index]
    decided: Literal["accepted", "rejected"] = "accepted" if verdict.accepted else "rejected"
    checks = list(verdict.checks)
    digest = digest_of(
        [decided, [c.model_dump() for c in checks], chosen.digest, data.digest,
         _exported_values(assessment)],
    )  # fmt: skip
    notes = [*choice.reasons, *assessment.notes]
    ood, comparison = assessment.ood, assessment.comparison
    if comparison is not None and champion_dataset not in (None, data.digest):
        notes.append(
            f"{comparison.name} was trained on another dataset, which may contain test images"
        )
    return EvaluationManifest(
        digest=digest,
        made_by=MadeBy(step="evaluate", version=VERSION, seconds=seconds),
        verdict=decided,
        checks=checks,
        strategy=chosen.strategy,
        model_digest=chosen.digest,
        dataset_digest=data.digest,
        classes=data.classes,
        candidates=list_results(manifests, choice.index),
        metrics=assessment.metrics.values,
        per_class=assessment.metrics.per_class,
        confusion=assessment.metrics.confusion,
        temperature=assessment.temperature,
        notes=notes,
        details={
            "ood": asdict(ood) if ood else None,
            "champion": asdict(comparison) if comparison else None,
            **_optional(assessment, corruption_drops),
        },
    )


def _exported_values(assessment: Assessment) -> dict[str, str]:
    """Return what a model contains of its evaluation, rounded, except measured times."""
    ood, sets, abstention = assessment.ood, assessment.prediction_sets, assessment.abstention
    values = {
        **assessment.metrics.values,
        "temperature": assessment.temperature,
        "ood_threshold": ood.threshold if ood else None,
        "set_threshold": sets.threshold if sets else None,
        "abstention_threshold": abstention.threshold if abstention else None,
    }
    labels = assessment.labels.thresholds if assessment.labels else []
    values |= {f"threshold {index}": threshold for index, threshold in enumerate(labels)}
    return {
        name: f"{value:.6g}"
        for name, value in values.items()
        if value is not None and name != "latency_ms"
    }


def _optional(assessment: Assessment, drops: Sequence[CorruptionDrop]) -> dict[str, Any]:
    """Return what not every evaluation has: several labels, prediction sets, and so on."""
    found = {
        "labels": assessment.labels,
        "prediction_sets": assessment.prediction_sets,
        "abstention": assessment.abstention,
    }
    details: dict[str, Any] = {
        name: asdict(value) for name, value in found.items() if value is not None
    }
    lists: dict[str, Sequence[Any]] = {"slices": assessment.slices, "corruptions": drops}
    return details | {name: [asdict(one) for one in rows] for name, rows in lists.items() if rows}
