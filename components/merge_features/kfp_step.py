"""Runs the step on the artifacts of KFP."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from regraft_core.formats.stored_artifacts import copy_artifact
from regraft_core.runtime.step_reports import run_step
from regraft_core.training.feature_store import read_manifests


def run(parts: Sequence[Any], features: Any) -> None:
    """Run the step; the arguments are those of the component `merge_features`."""
    with run_step("merge_features"):
        folders = [part.path for part in parts]
        read_manifests(folders)
        for number, folder in enumerate(folders):
            copy_artifact(folder, Path(features.path) / f"worker-{number}")
