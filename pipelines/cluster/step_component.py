"""Runs the component of one step, from the code in the container image: one attempt of the step.

python -P -m pipelines.cluster.step_component STEP EXECUTOR_INPUT
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import sys
from pathlib import Path

from kfp.dsl.executor import Executor

from pipelines.cluster.ray_connection import RUN_VARIABLE
from pipelines.cluster.shared_artifacts import SharingExecutor, shared_folder


def run_component(step: str, executor_input: str) -> None:
    """Run the component of a step.

    Args:
        step: its name, such as `train_head`.
        executor_input: inputs and outputs as JSON, as KFP's launcher passes them.
    """
    component = getattr(importlib.import_module(f"components.{step}.component"), step)
    given = json.loads(executor_input)
    run_id = os.environ.get(RUN_VARIABLE, "")
    folder = shared_folder(given, step, run_id) if run_id else None
    executor = SharingExecutor(given, component, folder) if folder else Executor(given, component)
    own = component.component_spec.outputs or {}  # the launcher has one more: its log
    for name, artifact in executor.output_artifacts.items():
        if name in own:
            remove_output(Path(artifact.path))
    executor.execute()


def remove_output(path: Path) -> None:
    """Remove what an earlier attempt has written, because a step does not replace its outputs."""
    for left in (path, *path.parent.glob(f".{path.name}.*")):  # the others are not complete
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left)
        else:
            left.unlink(missing_ok=True)


if __name__ == "__main__":
    run_component(*sys.argv[1:])
