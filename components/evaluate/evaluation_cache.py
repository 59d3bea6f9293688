"""An evaluation that a run on this machine made before is found again, where nothing has changed.

kfp's cache cannot tell, as it knows the model in service by its place only.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.evaluate.gate.champion import find_champion
from regraft_core.formats.manifest_storage import digest_of
from regraft_core.formats.manifests import (
    DatasetManifest,
    EvaluationManifest,
    ModelManifest,
    SavedModelManifest,
)
from regraft_core.runtime.errors import InputError
from regraft_core.runtime.version import code_digest

_LENGTH = 16
_NO_CHAMPION = digest_of(None)[:_LENGTH]


@dataclass(frozen=True)
class EvaluationKey:
    """What an evaluation answers, by content: the candidates, the data, the gate, the champion."""

    asked: str
    champion: str
    champion_model: str | None

    @property
    def digest(self) -> str:
        """A name for the answer: 16 digits for all but the champion, 16 for that."""
        return self.asked[:_LENGTH] + self.champion[:_LENGTH]


def evaluation_key(
    candidates: Sequence[str | os.PathLike[str]],
    dataset: str | os.PathLike[str],
    gate: Mapping[str, Any],
    champion: str,
) -> EvaluationKey | None:
    """Return what is to be answered, or None where the model in service cannot be told by content.

    Args:
        candidates: folders of the candidates.
        dataset: the dataset's folder.
        gate: the values of `GateOptions`.
        champion: as `evaluate`.
    """
    if gate.get("ood_images") or ("://" in champion and not champion.startswith("file://")):
        return None  # a folder that may change; a bucket, from which all would have to be copied
    models = sorted(ModelManifest.read(folder).digest for folder in candidates)
    data = DatasetManifest.read(dataset).digest
    asked = digest_of([models, data, dict(gate), code_digest()])
    with tempfile.TemporaryDirectory(prefix="regraft-champion-") as work:
        rival = find_champion(champion, Path(work))
        if rival is None:
            return EvaluationKey(asked, _NO_CHAMPION, None)
        try:
            manifest = SavedModelManifest.read(rival.folder)
        except InputError:
            return None
    own = manifest.model_digest if manifest.model_digest in models else None
    return EvaluationKey(asked, manifest.digest, own)


def find_cached(question: EvaluationKey, kept: Path) -> Path | None:
    """Return the folder of the evaluation that answers the question, among those that are kept.

    Where the model in service is the very one that an evaluation of the same candidates let out,
    that evaluation stands: a model is not judged against itself.

    Args:
        question: what is asked.
        kept: the folder named in `keep_by_content`.
    """
    exact = kept / f"evaluation-{question.asked[:_LENGTH]}{question.champion[:_LENGTH]}"
    others = sorted(kept.glob(f"evaluation-{question.asked[:_LENGTH]}*"))
    for folder in [exact, *others]:
        try:
            answer = EvaluationManifest.read(folder)
        except InputError:
            continue
        let_out = answer.verdict == "accepted" and answer.model_digest == question.champion_model
        if folder == exact or let_out:
            return folder
    return None
