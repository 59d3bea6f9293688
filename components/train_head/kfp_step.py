"""Runs the step on the artifacts of KFP."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.train_head.train_head import exceeds_memory, train_head
from regraft_core.formats.option_parsing import select_options
from regraft_core.formats.options.train_head import HeadOptions
from regraft_core.formats.stored_artifacts import keep, origin_of
from regraft_core.parallel.ray_executor import ray_executor
from regraft_core.runtime.step_reports import run_step
from regraft_core.training.feature_store import feature_folders


def run(options: Mapping[str, Any], features: Any, model: Any) -> None:
    """Run the step; the arguments are those of the component `train_head`."""
    with run_step("train_head"):
        checked = select_options(HeadOptions, options)
        folders = feature_folders(features.path)
        cluster = ray_executor(Path(model.path).parent, *folders)
        used = cluster if exceeds_memory(folders, checked) else contextlib.nullcontext()
        with used as executor:
            manifest = train_head(folders, model.path, checked, executor)
        model.metadata.update(
            digest=manifest.digest, validation_accuracy=manifest.validation_accuracy
        )
        name = f"head-{manifest.digest[:32]}"
        keep(model, name, manifest.file_name, origin_of("train_head", options, features))
