"""Runs the step on the artifacts of KFP."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from components.conclude.conclude import as_line, conclude, end_ray, log_outcome
from regraft_core.kuberay.kubernetes_api import api_of_pod
from regraft_core.runtime.step_reports import log_progress, run_step
from regraft_core.tracking.mlflow_log import kubeflow_target


def run(
    outcome: Any,
    run_id: str,
    destination: str,
    model_name: str,
    mlflow: str = "",
    ray_nodes: int = 0,
) -> None:
    """Run the step; the arguments are those of the component `conclude`."""
    with run_step("conclude"):
        if ray_nodes:  # first: its nodes cost money, whatever else fails
            log_progress(end_ray(api_of_pod(os.environ), run_id))
        text = conclude(run_id, destination, model_name)
        Path(outcome.path).write_text(text, encoding="utf-8")
        log_progress(as_line(text))
        if target := kubeflow_target(mlflow, os.environ):
            log_progress(log_outcome(run_id, destination, model_name, target))
