"""Runs the step on the artifacts of KFP."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Any

from components.verify.verify import TABLE_FILE, verify
from regraft_core.formats.option_parsing import select_options
from regraft_core.formats.options.verify import VerifyOptions
from regraft_core.formats.stored_artifacts import content_folder
from regraft_core.runtime.step_reports import run_step


def run(
    options: Mapping[str, Any],
    saved_model: Any,
    model: Any,
    evaluation: Any,
    dataset: Any,
    parity: Any,
    table: Any,
) -> None:
    """Run the step; the arguments are those of the component `verify`."""
    with run_step("verify"):
        checked = select_options(VerifyOptions, options)
        exported = content_folder(saved_model.path)
        report = verify(exported, model.path, evaluation.path, dataset.path, parity.path, checked)
        shutil.copyfile(f"{parity.path}/{TABLE_FILE}", table.path)
    parity.metadata.update(engine=report.engine, **report.max_abs_diff)
