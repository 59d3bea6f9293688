"""Artifacts of a step in a folder that Ray nodes see, while the step runs.

KFP's launcher puts artifacts into folders of the pod, which no other pod sees. With a content store
in a PersistentVolumeClaim, which the nodes mount too, artifacts are small: they refer to the store.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kfp.dsl.executor import Executor

FOLDER = ".ray"


class SharingExecutor(Executor):
    """Runs a component on copies of its inputs, and takes its outputs back.

    Args:
        executor_input: inputs and outputs, as KFP's launcher passes them.
        component: the component.
        folder: a folder that all nodes see; its content is replaced, and removed at the end.
    """

    def __init__(self, executor_input: Mapping[str, Any], component: Any, folder: Path) -> None:
        super().__init__(executor_input, component)
        self._folder = folder
        self._own_paths = {
            name: Path(artifact.path) for name, artifact in self.output_artifacts.items()
        }

    def execute(self) -> Any:
        """Run the component; return the path of its results."""
        shutil.rmtree(self._folder, ignore_errors=True)
        try:
            for kind, artifacts in (("in", self.input_artifacts), ("out", self.output_artifacts)):
                folder = self._folder / kind
                folder.mkdir(parents=True)
                for name, artifact in artifacts.items():
                    if kind == "in":
                        shutil.copytree(artifact.path, folder / name)
                    artifact.custom_path = str(folder / name)
            return super().execute()
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def write_executor_output(self, func_output: Any = None) -> Any:
        """Move the outputs to where the launcher expects them, then describe them."""
        for name, path in self._own_paths.items():
            artifact = self.output_artifacts[name]
            shared = Path(artifact.path)
            artifact.custom_path = ""
            if shared.exists():
                shutil.move(shared, path)
        return super().write_executor_output(func_output)


def shared_folder(executor_input: Mapping[str, Any], step: str, run_id: str) -> Path | None:
    """Return a folder of the step's content store for its artifacts; None without a store."""
    parameters = executor_input.get("inputs", {}).get("parameterValues", {})
    work_dir = parameters.get("options", {}).get("work_dir", "")
    return Path(work_dir) / FOLDER / f"{run_id}-{step}" if work_dir else None
