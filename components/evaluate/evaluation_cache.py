"""Finds the evaluation of an earlier run on this machine if nothing has changed.

The cache of kfp cannot, because it identifies the champion by its path only.
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
    """The inputs of an evaluation by content: candidates, dataset, gate and code; the champion."""

    inputs: str
    champion: str
    champion_model: str | None

    @property
    def digest(self) -> str:
        """Name of the evaluation: 16 digits of the inputs and 16 of the champion."""
        return self.inputs[:_LENGTH] + self.champion[:_LENGTH]


def evaluation_key(
    candidates: Sequence[str | os.PathLike[str]],
    dataset: str | os.PathLike[str],
    gate: Mapping[str, Any],
    champion: str,
) -> EvaluationKey | None:
    """Return the key of an evaluation; None if the champion cannot be identified by content.

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
    inputs = digest_of([models, data, dict(gate), code_digest()])
    with tempfile.TemporaryDirectory(prefix="regraft-champion-") as work:
        published = find_champion(champion, Path(work))
        if published is None:
            return EvaluationKey(inputs, _NO_CHAMPION, None)
        try:
            manifest = SavedModelManifest.read(published.folder)
        except InputError:
            return None
    own = manifest.model_digest if manifest.model_digest in models else None
    return EvaluationKey(inputs, manifest.digest, own)


def find_cached(key: EvaluationKey, kept: Path) -> Path | None:
    """Return the folder of the kept evaluation with this key.

    If the champion is the model that an evaluation of the same candidates accepted, that evaluation
    is valid too: a model is not compared with itself.

    Args:
        key: of the evaluation.
        kept: the folder of `keep_by_content`.
    """
    exact = kept / f"evaluation-{key.digest}"
    others = sorted(kept.glob(f"evaluation-{key.inputs[:_LENGTH]}*"))
    for folder in [exact, *others]:
        try:
            manifest = EvaluationManifest.read(folder)
        except InputError:
            continue
        accepted = manifest.verdict == "accepted" and manifest.model_digest == key.champion_model
        if folder == exact or accepted:
            return folder
    return None
