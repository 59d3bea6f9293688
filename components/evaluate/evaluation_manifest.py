"""From an assessment to the manifest that export, verify and people read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Literal

from components.evaluate.assess import Assessment
from components.evaluate.gate.selection import Choice, results
from regraft_core.formats.manifest_storage import MadeBy, digest_of
from regraft_core.formats.manifests import DatasetManifest, EvaluationManifest, ModelManifest
from regraft_core.runtime.version import VERSION


def build_manifest(
    assessment: Assessment,
    manifests: Sequence[ModelManifest],
    choice: Choice,
    data: DatasetManifest,
    champion_dataset: str | None,
    seconds: float,
) -> EvaluationManifest:
    """Return the manifest of an assessment; its digest covers what was decided about what.

    Args:
        assessment: what was found.
        manifests: the candidates, in the order of `choice`.
        choice: which of them was assessed.
        data: the dataset.
        champion_dataset: digest of the dataset that the champion learned from, where known.
        seconds: that the evaluation took.
    """
    verdict, chosen = assessment.verdict, manifests[choice.index]
    decided: Literal["accepted", "rejected"] = "accepted" if verdict.accepted else "rejected"
    checks = list(verdict.checks)
    digest = digest_of(
        [decided, [c.model_dump() for c in checks], chosen.digest, data.digest],
    )
    notes = list(assessment.notes)
    familiar, comparison = assessment.ood, assessment.comparison
    if comparison is not None and champion_dataset not in (None, data.digest):
        notes.append(
            f"{comparison.name} learned from another dataset and may know some test images"
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
        candidates=results(manifests, choice.index),
        metrics=assessment.figures.metrics,
        per_class=assessment.figures.per_class,
        confusion=assessment.figures.confusion,
        temperature=assessment.temperature,
        notes=notes,
        details={
            "familiar": asdict(familiar) if familiar else None,
            "champion": asdict(comparison) if comparison else None,
        },
    )
