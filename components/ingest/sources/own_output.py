"""Folders that Regraft made: they may be among the images, and are no classes."""

from __future__ import annotations

import os
from pathlib import Path

from regraft_core.formats.manifests.dataset import DatasetManifest
from regraft_core.formats.manifests.evaluation import EvaluationManifest
from regraft_core.formats.manifests.features import FeaturesManifest
from regraft_core.formats.manifests.model import CandidatesManifest, ModelManifest
from regraft_core.formats.manifests.parity import ParityManifest
from regraft_core.formats.manifests.published import PublishedManifest
from regraft_core.formats.manifests.saved_model import SavedModelManifest

_MANIFESTS = tuple(
    kind.file_name
    for kind in (
        CandidatesManifest, DatasetManifest, EvaluationManifest, FeaturesManifest, ModelManifest,
        ParityManifest, PublishedManifest, SavedModelManifest,
    )
)  # fmt: skip
_RUN = ("run.log", "steps")
_DEPTH = 3


def is_own_output(folder: Path, depth: int = _DEPTH) -> bool:
    """Return whether a folder is a run, an output of a step, or consists of such folders."""
    if any((folder / name).is_file() for name in _MANIFESTS):
        return True
    if all((folder / name).exists() for name in _RUN):
        return True
    if not depth:
        return False
    found = False
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                # Files beside the folders, such as images, are not Regraft's.
                if not entry.is_dir(follow_symlinks=False):
                    return False
                if not is_own_output(Path(entry.path), depth - 1):
                    return False
                found = True
    except OSError:
        return False
    return found
