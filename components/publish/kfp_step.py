"""Runs the step on the artifacts of KFP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.publish.publish import Compared, publish
from regraft_core.formats.option_parsing import select_options
from regraft_core.formats.options.publish import PublishOptions
from regraft_core.formats.stored_artifacts import content_folder
from regraft_core.runtime.step_reports import run_step


def run(options: Mapping[str, Any], saved_model: Any, parity: Any, published: Any) -> None:
    """Run the step; the arguments are those of the component `publish`."""
    with run_step("publish"):
        checked = select_options(PublishOptions, options)
        manifest = publish(
            content_folder(saved_model.path), parity.path, published.path, options["destination"],
            options["model_name"], checked, options.get("run_id", ""), _compared(options),
        )  # fmt: skip
    published.metadata.update(version=manifest.version, path=manifest.path)


def _compared(options: Mapping[str, Any]) -> Compared | None:
    if "inputs" not in options:
        return None
    return Compared(options["inputs"], options["champion"], options["champion_digest"])
