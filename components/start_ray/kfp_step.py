"""Runs the step in a pod of the run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from components.start_ray.start_ray import POD_VARIABLE, start_ray
from regraft_core.kuberay.kubernetes_api import api_of_pod
from regraft_core.kuberay.ray_cluster import RayPod
from regraft_core.runtime.errors import InputError
from regraft_core.runtime.step_reports import run_step


def run(run_id: str, nodes: int, head: Mapping[str, Any], worker: Mapping[str, Any]) -> None:
    """Run the step; the arguments are those of the component `start_ray`."""
    with run_step("start_ray"):
        pods = RayPod.model_validate(head), RayPod.model_validate(worker)
        name = os.environ.get(POD_VARIABLE, "")
        if not name:
            raise InputError(f"ray_nodes: expected the name of this pod in {POD_VARIABLE}, got "
                             "none; compile the pipeline with --ray-nodes")  # fmt: skip
        start_ray(api_of_pod(os.environ), run_id, name, *pods, nodes=nodes)
