"""Choosing among candidates: by validation data only, the simplest of equals first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from regraft_core.formats.manifests import CandidateResult, ModelManifest
from regraft_core.runtime.errors import InputError

TRAINED = {"head": 0, "top": 1, "full": 2}


@dataclass(frozen=True)
class Choice:
    """The chosen candidate and what it had to reach: the accuracy of its head on validation.

    `sound` is False when no candidate reached that; the best of them is chosen all the same, so
    that there is something to report, but the gate must refuse it. `floor` is -inf without a head.
    """

    index: int
    floor: float
    sound: bool


def choose(manifests: Sequence[ModelManifest]) -> Choice:
    """Choose the candidate with the best validation accuracy.

    Of equals, the one that trained less (`head` before `top` before `full`) is taken, then the one
    with the lower validation loss. A candidate that ended below its head comes after all others.

    Raises:
        InputError: there is no candidate.
    """
    if not manifests:
        raise InputError("expected at least one candidate, got none")
    heads = [m.validation_accuracy for m in manifests if m.strategy == "head"]
    floor = max((a for a in heads if math.isfinite(a)), default=-math.inf)

    def order(index: int) -> tuple[bool, float, int, float, int]:
        manifest = manifests[index]
        accuracy, loss = manifest.validation_accuracy, manifest.validation_loss
        known = math.isfinite(accuracy)
        below = not known or accuracy < max(floor, _own_head(manifest))
        rank = TRAINED[manifest.strategy]
        lost = loss if math.isfinite(loss) else math.inf
        return below, -accuracy if known else math.inf, rank, lost, index

    below, *_, index = min(map(order, range(len(manifests))))
    return Choice(index, max(floor, _own_head(manifests[index])), sound=not below)


def _own_head(manifest: ModelManifest) -> float:
    """Return the validation accuracy of the head that a candidate started from, where told."""
    told = manifest.measurements.get("head_validation_accuracy")
    return float(told) if isinstance(told, int | float) and math.isfinite(told) else -math.inf


def results(manifests: Sequence[ModelManifest], chosen: int) -> list[CandidateResult]:
    """Return the candidates as they were compared, in the given order."""
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
