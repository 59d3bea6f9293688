"""The file for Kubeflow: all steps, the gate's condition, each parameter with its description."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from components.core.errors import InputError
from pipelines.compilation import compile_pipeline
from pipelines.recipe import DEFAULTS, PARAMETER_FIELDS

STEPS = {"ingest", "extract-features", "train-head", "fine-tune", "evaluate", "export", "verify",
         "publish"}  # fmt: skip


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("compiled") / "pipeline.yaml"
    compile_pipeline({"sources": ("sample:digits",), "backbone": "efficientnet_lite0"}, path)
    return next(yaml.safe_load_all(path.read_text()))


def test_all_steps_are_there(compiled: dict[str, Any]) -> None:
    executors = compiled["deploymentSpec"]["executors"]
    assert {name.removeprefix("exec-") for name in executors} == STEPS


def test_export_verify_and_publish_wait_for_the_gate(compiled: dict[str, Any]) -> None:
    tasks = compiled["root"]["dag"]["tasks"]
    assert not {"export", "verify", "publish"} & set(tasks)
    (condition,) = [t for t in tasks.values() if "condition" in t.get("triggerPolicy", {})]
    inner = compiled["components"][condition["componentRef"]["name"]]["dag"]["tasks"]
    assert set(inner) == {"export", "verify", "publish"}
    assert "evaluate-Output" in condition["triggerPolicy"]["condition"]


def test_every_option_is_a_described_parameter(compiled: dict[str, Any]) -> None:
    parameters = compiled["root"]["inputDefinitions"]["parameters"]
    assert set(parameters) == set(PARAMETER_FIELDS)
    assert all(parameter.get("description") for parameter in parameters.values())
    assert parameters["backbone"]["defaultValue"] == "efficientnet_lite0"
    assert parameters["head_epochs"]["defaultValue"] == DEFAULTS["head_epochs"]


def test_publish_is_never_cached(compiled: dict[str, Any]) -> None:
    tasks = [task for component in compiled["components"].values()
             for name, task in component.get("dag", {}).get("tasks", {}).items()
             if name == "publish"]  # fmt: skip
    assert tasks
    assert not any(task["cachingOptions"].get("enableCache") for task in tasks)


def test_another_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected a \.yaml"):
        compile_pipeline({}, tmp_path / "pipeline.txt")
