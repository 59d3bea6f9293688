"""Finds the evaluation of an earlier run if nothing has changed.

The cache of Kubeflow Pipelines cannot, because publishing changes the champion: the run after an
accepted one has another champion, the model that the earlier run accepted.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regraft_core.formats.content_store import ContentStore
from regraft_core.formats.manifest_storage import digest_of
from regraft_core.formats.manifests import DatasetManifest, EvaluationManifest, ModelManifest
from regraft_core.formats.published_versions import locate_version, read_version_manifest
from regraft_core.formats.stored_artifacts import working_folder
from regraft_core.runtime.errors import InputError
from regraft_core.runtime.version import code_digest

_KIND = "evaluation"
_LENGTH = 16
_NO_CHAMPION = digest_of(None)[:_LENGTH]


@dataclass(frozen=True)
class EvaluationKey:
    """The inputs of an evaluation by content: candidates, dataset, gate and code; the champion.

    `champion_model` is the digest of the champion's model if it is one of the candidates.
    """

    inputs: str
    champion: str
    champion_model: str | None

    @property
    def name(self) -> str:
        """Name in a content store: 16 digits of the inputs and 16 of the champion."""
        return f"{_KIND}-{self.inputs[:_LENGTH]}{self.champion[:_LENGTH]}"


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

    Raises:
        InputError: the champion cannot be read.
    """
    if gate.get("ood_images"):
        return None  # a folder that may change
    models = sorted(ModelManifest.read(folder).digest for folder in candidates)
    data = DatasetManifest.read(dataset).digest
    inputs = digest_of([models, data, dict(gate), code_digest()])
    location = locate_version(champion) if champion else None
    if location is None:
        return EvaluationKey(inputs, _NO_CHAMPION, None)
    manifest = read_version_manifest(location[0])
    if manifest is None:
        return None  # exported by another program
    own = manifest.model_digest if manifest.model_digest in models else None
    return EvaluationKey(inputs, manifest.digest, own)


def find_cached(key: EvaluationKey, work_dir: str) -> Path | None:
    """Return a local folder of the stored evaluation with this key.

    If the champion is the model that an evaluation of the same candidates accepted, that evaluation
    is valid too: a model is not compared with itself.

    Args:
        key: of the evaluation.
        work_dir: root of the content store.

    Raises:
        InputError: the store cannot be read.
    """
    store = ContentStore(work_dir)
    prefix = f"{_KIND}-{key.inputs[:_LENGTH]}"
    others = [name for name in store.names() if name.startswith(prefix) and name != key.name]
    for name in [key.name, *others]:
        if not store.contains(name, EvaluationManifest.file_name):
            continue
        folder = working_folder(work_dir, name)
        try:
            manifest = EvaluationManifest.read(folder or "")
        except InputError:
            continue
        accepted = manifest.verdict == "accepted" and manifest.model_digest == key.champion_model
        if name == key.name or accepted:
            return folder
    return None
