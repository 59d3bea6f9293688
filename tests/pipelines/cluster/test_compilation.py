"""The compiled file: all steps, the condition of the gate, each parameter with a description."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import json_format

from pipelines.cluster.compilation import compile_pipeline
from pipelines.cluster.retry_policy import RETRY_POLICIES
from pipelines.recipes.recipe import DEFAULTS, PARAMETER_FIELDS
from regraft_core.runtime.errors import InputError
from tests.command_line import Regraft

STEPS = {"ingest", "extract-features", "train-head", "fine-tune", "evaluate", "export", "verify",
         "publish", "conclude"}  # fmt: skip


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("compiled") / "pipeline.yaml"
    compile_pipeline({"sources": ("sample:digits",), "backbone": "efficientnet_lite0"}, path)
    return next(yaml.safe_load_all(path.read_text()))


def test_all_steps_are_compiled(compiled: dict[str, Any]) -> None:
    executors = compiled["deploymentSpec"]["executors"]
    assert {name.removeprefix("exec-") for name in executors} == STEPS


def test_export_verify_and_publish_wait_for_the_gate(compiled: dict[str, Any]) -> None:
    tasks = compiled["components"]["comp-transfer"]["dag"]["tasks"]
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


def test_the_last_step_runs_after_all_others_also_after_a_failure(compiled: dict[str, Any]) -> None:
    tasks = compiled["root"]["dag"]["tasks"]
    assert set(tasks) == {"transfer", "conclude"}
    last = tasks["conclude"]
    assert last["dependentTasks"] == ["transfer"]
    assert last["triggerPolicy"]["strategy"] == "ALL_UPSTREAM_TASKS_COMPLETED"
    assert last["inputs"]["parameters"]["status"] == {
        "taskFinalStatus": {"producerTask": "transfer"}
    }


def tasks_of(pipeline: dict[str, Any]) -> dict[str, Any]:
    """All tasks that run a step, by the step's name."""
    dags = [pipeline["root"], *pipeline["components"].values()]
    tasks = [task for dag in dags for task in dag.get("dag", {}).get("tasks", {}).items()]
    return {name: task for name, task in tasks if name in STEPS}


def test_every_step_has_retries_with_growing_waits(compiled: dict[str, Any]) -> None:
    tasks = tasks_of(compiled)
    assert set(tasks) == STEPS
    for name, task in tasks.items():
        policy = RETRY_POLICIES[name.replace("-", "_")]
        assert task["retryPolicy"]["maxRetryCount"] == policy.retries >= 1
        assert task["retryPolicy"]["backoffDuration"] == f"{policy.first_wait_s}s"
        assert task["retryPolicy"]["backoffFactor"] == 2.0


def test_a_local_run_has_no_retries() -> None:
    from pipelines.pipeline import pipeline

    spec = json_format.MessageToDict(pipeline.pipeline_spec)
    assert not any("retryPolicy" in task for task in tasks_of(spec).values())


def test_publish_is_never_cached(compiled: dict[str, Any]) -> None:
    tasks = [task for component in compiled["components"].values()
             for name, task in component.get("dag", {}).get("tasks", {}).items()
             if name == "publish"]  # fmt: skip
    assert tasks
    assert not any(task["cachingOptions"].get("enableCache") for task in tasks)


def test_the_command_sets_container_image_and_pvc_of_each_step(
    regraft: Regraft, tmp_path: Path
) -> None:
    file = tmp_path / "pipeline.yaml"
    ended = regraft("compile", "digits", "-o", file, "--image", "ghcr.io/me/regraft-python:1",
                    "--pvc", "models=/models", "--destination", "/models")  # fmt: skip
    assert (ended.code, ended.out.strip(), ended.err) == (0, str(file), "")
    spec, platform = yaml.safe_load_all(file.read_text())
    images = {one["container"]["image"] for one in spec["deploymentSpec"]["executors"].values()}
    assert images == {"ghcr.io/me/regraft-python:1"}
    pods = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values()
    assert {pod["pvcMount"][0]["mountPath"] for pod in pods} == {"/models"}


def test_the_command_warns_about_a_missing_destination(regraft: Regraft, tmp_path: Path) -> None:
    ended = regraft("compile", "digits", "-o", tmp_path / "pipeline.yaml")
    assert ended.code == 0
    assert "destination has no default" in ended.err


def test_another_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected a \.yaml"):
        compile_pipeline({}, tmp_path / "pipeline.txt")
