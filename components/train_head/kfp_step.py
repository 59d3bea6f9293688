"""Runs the step on the artifacts of KFP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.train_head.train_head import train_head
from regraft_core.formats.option_parsing import select_options
from regraft_core.formats.options.train_head import HeadOptions
from regraft_core.formats.stored_artifacts import keep, origin_of
from regraft_core.runtime.step_reports import run_step
from regraft_core.training.feature_store import feature_folders


def run(options: Mapping[str, Any], features: Any, model: Any) -> None:
    """Run the step; the arguments are those of the component `train_head`."""
    with run_step("train_head"):
        checked = select_options(HeadOptions, options)
        manifest = train_head(feature_folders(features.path), model.path, checked)
        model.metadata.update(
            digest=manifest.digest, validation_accuracy=manifest.validation_accuracy
        )
        name = f"head-{manifest.digest[:32]}"
        keep(model, name, manifest.file_name, origin_of("train_head", options, features))
