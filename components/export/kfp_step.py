"""Runs the step on the artifacts of KFP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.export.export import export
from regraft_core.formats.option_parsing import select_options
from regraft_core.formats.options.export import ExportOptions
from regraft_core.formats.stored_artifacts import keep, origin_of
from regraft_core.runtime.step_reports import run_step


def run(
    options: Mapping[str, Any], model: Any, evaluation: Any, dataset: Any, saved_model: Any
) -> None:
    """Run the step; the arguments are those of the component `export`."""
    with run_step("export"):
        checked = select_options(ExportOptions, options)
        manifest = export(model.path, evaluation.path, dataset.path, saved_model.path, checked)
        saved_model.metadata.update(digest=manifest.digest, strategy=manifest.strategy)
        name = f"saved_model-{manifest.digest[:32]}"
        origin = origin_of("export", options, model, evaluation, dataset)
        keep(saved_model, name, manifest.file_name, origin)
