"""Runs the component of one step in a pod, from the code in its container image.

    python -P -m pipelines.cluster.step_process STEP EXECUTOR_INPUT

kfp would put a copy of each component's code into the compiled pipeline, and Argo copies it again
into each node of a run.
"""

from __future__ import annotations

import importlib
import json
import sys

from kfp.dsl.executor import Executor


def run_component(step: str, executor_input: str) -> None:
    """Run the component of a step.

    Args:
        step: its name, such as `train_head`.
        executor_input: inputs and outputs as JSON, as KFP's launcher passes them.
    """
    component = getattr(importlib.import_module(f"components.{step}.component"), step)
    Executor(json.loads(executor_input), component).execute()


if __name__ == "__main__":
    run_component(*sys.argv[1:])
