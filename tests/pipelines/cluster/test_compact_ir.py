"""What is removed from a compiled pipeline, and what stays."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.cluster import step_process
from pipelines.cluster.compilation import compile_pipeline
from pipelines.recipes.recipe import make_recipe


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("compiled") / "pipeline.yaml"
    compile_pipeline(make_recipe(sources=("sample:digits",), workers=8), path)
    return next(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def test_descriptions_stay_where_the_form_of_a_run_shows_them(spec: dict[str, Any]) -> None:
    parameters = spec["root"]["inputDefinitions"]["parameters"]
    assert all(one["description"] for one in parameters.values())
    assert "description" not in str(
        [c.get("inputDefinitions") for c in spec["components"].values()]
    )


def test_each_step_runs_the_component_of_the_container_image(spec: dict[str, Any]) -> None:
    executors = spec["deploymentSpec"]["executors"]
    assert len(executors) == 12
    for label, one in executors.items():
        step, given = one["container"]["args"]
        assert one["container"]["command"][-1] == step_process.__name__
        assert (label, given) == (f"exec-{step.replace('_', '-')}", "{{$}}")
        component = getattr(import_module(f"components.{step}.component"), step)
        defined = spec["components"][f"comp-{step.replace('_', '-')}"].get("inputDefinitions", {})
        names = {*defined.get("parameters", {}), *defined.get("artifacts", {})}
        assert names == set(component.component_spec.inputs or ())


def test_a_component_gets_its_inputs_and_writes_its_outputs(tmp_path: Path) -> None:
    """As KFP's launcher starts it, in a process of its own."""
    output, page = tmp_path / "output.json", tmp_path / "outcome"
    given = {
        "inputs": {"parameterValues": {"run_id": "run-1", "destination": str(tmp_path),
                                       "model_name": "pets"}},
        "outputs": {"outputFile": str(output), "artifacts": {"outcome": {"artifacts": [
            {"name": "outcome", "type": {"schemaTitle": "system.Markdown"}, "uri": str(page)},
        ]}}},
    }  # fmt: skip
    command = [sys.executable, "-P", "-m", step_process.__name__, "conclude", json.dumps(given)]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert page.read_text().startswith("# No verdict")
    assert json.loads(output.read_text())["artifacts"]["outcome"]


def test_the_types_of_artifacts_are_names(spec: dict[str, Any]) -> None:
    assert spec["schemaVersion"]
    assert "'artifactType': {'schemaTitle': 'system.Dataset'}" in str(spec["components"])
    assert "schemaVersion" not in str(spec["components"])
