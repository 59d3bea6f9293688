"""Runs the step on the artifacts of KFP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from regraft_core.runtime.gpu_check import check_gpu
from regraft_core.runtime.step_reports import run_step


def run(
    options: Mapping[str, Any],
    candidates: Any,
    dataset: Any,
    evaluation: Any,
    model: Any,
    metrics: Any,
    classification: Any,
    report: Any,
) -> bool:
    """Run the step; the arguments are those of the component `evaluate`."""
    with run_step("evaluate"):
        check_gpu(options.get("require_gpu", False))
        from components.evaluate.kfp_outputs import evaluate_artifacts

        outputs = {"evaluation": evaluation, "model": model, "metrics": metrics,
                   "classification": classification, "report": report}  # fmt: skip
        return evaluate_artifacts(candidates, dataset, outputs, options)
