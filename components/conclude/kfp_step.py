"""Runs the step on the artifacts of KFP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from components.conclude.conclude import as_line, conclude
from regraft_core.runtime.step_reports import log_progress, run_step


def run(outcome: Any, run_id: str, destination: str, model_name: str) -> None:
    """Run the step; the arguments are those of the component `conclude`."""
    with run_step("conclude"):
        text = conclude(run_id, destination, model_name)
        Path(outcome.path).write_text(text, encoding="utf-8")
        log_progress(as_line(text))
