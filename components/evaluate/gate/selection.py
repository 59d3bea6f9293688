"""Chooses among candidates by validation data only: the head, unless another is better than it.

A candidate that trains layers of the backbone replaces the head only if its log loss is
significantly lower on the same images; others may be better by chance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from regraft_core.formats.manifests.evaluation import CandidateResult
from regraft_core.formats.manifests.model import ModelManifest
from regraft_core.runtime.errors import InputError
from regraft_core.training.paired_losses import PairedLosses, no_room

TRAINED = {"head": 0, "top": 1, "full": 2}


@dataclass(frozen=True)
class Choice:
    """The chosen candidate, the validation accuracy of its head (-inf if unknown), and reasons.

    If no candidate reaches its head, the best one is chosen nevertheless, so that there is
    something to report; the gate rejects it.
    """

    index: int
    head_accuracy: float
    reasons: list[str] = field(default_factory=list)


def choose(manifests: Sequence[ModelManifest]) -> Choice:
    """Choose the candidate with the lowest validation loss among those that may replace the head.

    Ties go to the one that trains fewer layers (`head` before `top` before `full`). Without a
    candidate `head`, all others may be chosen. A candidate below its head comes after all others.

    Raises:
        InputError: there is no candidate.
    """
    if not manifests:
        raise InputError("expected at least one candidate, got none")
    heads = [m for m in manifests if m.strategy == "head"]
    best_head = max((m.validation_accuracy for m in heads if _known(m)), default=-math.inf)

    def order(index: int) -> tuple[bool, bool, float, int, int]:
        manifest = manifests[index]
        below = not _known(manifest) or manifest.validation_accuracy < _own_head(
            manifest, best_head
        )
        compared = against_head(manifest)
        replaces = not heads or manifest.strategy == "head" or bool(compared and compared.better)
        return (
            below,
            not replaces,
            manifest.validation_loss if math.isfinite(manifest.validation_loss) else math.inf,
            TRAINED[manifest.strategy],
            index,
        )

    *_, index = min(map(order, range(len(manifests))))
    reasons = _reasons(manifests, index) if heads else []
    return Choice(index, _own_head(manifests[index], best_head), reasons)


def against_head(manifest: ModelManifest) -> PairedLosses | None:
    """Return a candidate's validation losses minus those of its head; None if not compared."""
    found = manifest.measurements.get("against_head")
    return PairedLosses(**found) if found else None


def _reasons(manifests: Sequence[ModelManifest], chosen: int) -> list[str]:
    """Return for each candidate that trained layers whether it replaces the head."""
    reasons = []
    for index, manifest in enumerate(manifests):
        if compared := against_head(manifest):
            cost = f"{manifest.strategy} took {manifest.made_by.seconds:.0f} s"
            change = f"changed the log loss on validation by {compared} per image"
            kept = f"{manifests[chosen].strategy} {'chosen' if index == chosen else 'kept'}"
            reasons.append(f"{kept}: {cost} and {change}")
        elif room := manifest.measurements.get("without_room"):
            kept = manifests[chosen].strategy
            reasons.append(f"{kept} kept: {no_room(manifest.strategy, PairedLosses(**room))}")
    return reasons


def _known(manifest: ModelManifest) -> bool:
    return math.isfinite(manifest.validation_accuracy)


def _own_head(manifest: ModelManifest, best_head: float) -> float:
    """Return the validation accuracy of the head that a candidate started from.

    If the candidate does not have it, that of the best head.
    """
    accuracy = manifest.measurements.get("head_validation_accuracy")
    if isinstance(accuracy, int | float) and math.isfinite(accuracy):
        return float(accuracy)
    return best_head


def list_results(manifests: Sequence[ModelManifest], chosen: int) -> list[CandidateResult]:
    """Return the results of the candidates, in the given order."""
    return [
        CandidateResult(
            strategy=manifest.strategy,
            digest=manifest.digest,
            validation_accuracy=manifest.validation_accuracy,
            validation_loss=manifest.validation_loss,
            seconds=_training_seconds(manifest),
            epochs=_training_epochs(manifest),
            chosen=index == chosen,
        )
        for index, manifest in enumerate(manifests)
    ]


def _training_seconds(manifest: ModelManifest) -> float:
    """Return the seconds of all epochs, and of what was searched for them."""
    epochs = sum(epoch.seconds for epoch in manifest.history)
    if manifest.requested_strategy == "search":  # which has the epochs of fine-tuning
        head = sum(epoch.seconds for epoch in manifest.history if epoch.phase == "head")
        return head + float(manifest.measurements["search"]["seconds"])
    return epochs + float(manifest.measurements.get("learning_rate", {}).get("seconds", 0.0))


def _training_epochs(manifest: ModelManifest) -> int:
    """Return the epochs after the head's, with those of the search for the learning rate."""
    search = manifest.measurements.get("learning_rate", {})
    tried = len(search.get("trials", ())) * int(search.get("epochs", 0))
    return tried + sum(epoch.phase != "head" for epoch in manifest.history)
