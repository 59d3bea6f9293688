"""Runs the step on the artifacts of KFP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from regraft_core.formats.manifests.evaluation import EvaluationManifest
from regraft_core.formats.run_outcome import RunOutcome, write_outcome
from regraft_core.runtime.step_reports import log_progress, run_step
from regraft_core.tracking.tracked_run import read_details


def run(options: Mapping[str, Any], evaluation: Any) -> bool:
    """Run the step; the arguments are those of the component `record_verdict`."""
    with run_step("record_verdict"):
        found = EvaluationManifest.read(evaluation.path)
        outcome = RunOutcome(verdict=found.verdict, strategy=found.strategy,
                             metrics=found.metrics, checks=found.checks,
                             details=read_details(evaluation.path))  # fmt: skip
        write_outcome(options["destination"], options["model_name"], options["run_id"], outcome)
        failed = ", ".join(check.name for check in found.checks if not check.passed)
        log_progress(f"record_verdict: {found.verdict}{f' by {failed}' if failed else ''}")
    return found.verdict == "accepted"
