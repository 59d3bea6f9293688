"""Chooses among candidates by validation data only; ties go to the one that trains fewer layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from regraft_core.formats.manifests import CandidateResult, ModelManifest
from regraft_core.runtime.errors import InputError

TRAINED = {"head": 0, "top": 1, "full": 2}


@dataclass(frozen=True)
class Choice:
    """The chosen candidate, and the validation accuracy of its head, -inf without a head.

    If no candidate reaches it, the best one is chosen nevertheless, so that there is something to
    report; the gate rejects it.
    """

    index: int
    head_accuracy: float


def choose(manifests: Sequence[ModelManifest]) -> Choice:
    """Choose the candidate with the best validation accuracy.

    Ties go to the one that trains fewer layers (`head` before `top` before `full`), then to the one
    with the lower validation loss. A candidate below its head comes after all others.

    Raises:
        InputError: there is no candidate.
    """
    if not manifests:
        raise InputError("expected at least one candidate, got none")
    heads = [m.validation_accuracy for m in manifests if m.strategy == "head"]
    best_head = max((a for a in heads if math.isfinite(a)), default=-math.inf)

    def order(index: int) -> tuple[bool, float, int, float, int]:
        manifest = manifests[index]
        accuracy, loss = manifest.validation_accuracy, manifest.validation_loss
        known = math.isfinite(accuracy)
        below = not known or accuracy < max(best_head, _own_head(manifest))
        rank = TRAINED[manifest.strategy]
        finite_loss = loss if math.isfinite(loss) else math.inf
        return below, -accuracy if known else math.inf, rank, finite_loss, index

    *_, index = min(map(order, range(len(manifests))))
    return Choice(index, max(best_head, _own_head(manifests[index])))


def _own_head(manifest: ModelManifest) -> float:
    """Return the validation accuracy of the head that a candidate started from, -inf if unknown."""
    accuracy = manifest.measurements.get("head_validation_accuracy")
    if isinstance(accuracy, int | float) and math.isfinite(accuracy):
        return float(accuracy)
    return -math.inf


def list_results(manifests: Sequence[ModelManifest], chosen: int) -> list[CandidateResult]:
    """Return the results of the candidates, in the given order."""
    return [
        CandidateResult(
            strategy=manifest.strategy,
            digest=manifest.digest,
            validation_accuracy=manifest.validation_accuracy,
            validation_loss=manifest.validation_loss,
            seconds=sum(e.seconds for e in manifest.history),
            chosen=index == chosen,
        )
        for index, manifest in enumerate(manifests)
    ]
