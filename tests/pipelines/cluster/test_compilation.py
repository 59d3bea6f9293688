"""The compiled file: all steps, the condition of the gate, each parameter with a description."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import json_format

from pipelines.cluster.compilation import compile_pipeline, prepare_recipe
from pipelines.cluster.pod_settings import make_pods
from pipelines.cluster.retry_policy import RETRY_POLICIES
from pipelines.recipes.default_arguments import DEFAULTS
from pipelines.recipes.recipe import OPTION_FIELDS, WORKER_FIELDS, Recipe, make_recipe
from regraft_core.runtime.errors import InputError
from tests.command_line import Regraft

STEPS = {"resolve", "ingest", "extract-features", "train-head", "fine-tune", "evaluate", "export",
         "verify", "publish", "record-verdict", "conclude"}  # fmt: skip


def recipe(**options: Any) -> Recipe:
    return make_recipe(sources=("sample:digits",), **options)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("compiled") / "pipeline.yaml"
    compile_pipeline(recipe(backbone="efficientnet_lite0"), path)
    return next(yaml.safe_load_all(path.read_text()))


def test_a_signature_is_a_secret_of_the_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGNED", "sig=secret")
    options = {"sources": ("https://host/a.zip?${SIGNED}",)}
    with pytest.raises(InputError, match=r"--secret-env SECRET:KEY=SIGNED.*got none$"):
        prepare_recipe(options)
    pods = make_pods(secret_variables=("urls:pets=SIGNED",))
    assert prepare_recipe(options, pods=pods).sources == options["sources"]


def test_all_steps_are_compiled(compiled: dict[str, Any], tmp_path: Path) -> None:
    assert steps_of(compiled) == STEPS
    compile_pipeline(recipe(workers=2), tmp_path / "pipeline.yaml")
    several = next(yaml.safe_load_all((tmp_path / "pipeline.yaml").read_text()))
    assert steps_of(several) == STEPS | {"merge-features"}
    parameters = several["root"]["inputDefinitions"]["parameters"]
    assert set(parameters) == {*OPTION_FIELDS, *WORKER_FIELDS}


def steps_of(pipeline: dict[str, Any]) -> set[str]:
    return {name.removeprefix("exec-") for name in pipeline["deploymentSpec"]["executors"]}


def test_a_model_is_released_after_its_verdict_is_recorded(compiled: dict[str, Any]) -> None:
    tasks = compiled["components"]["comp-steps"]["dag"]["tasks"]
    (condition,) = [t for t in tasks.values() if "condition" in t.get("triggerPolicy", {})]
    assert "record-verdict-Output" in condition["triggerPolicy"]["condition"]
    assert "record-verdict" in condition["dependentTasks"]
    released = set(compiled["components"][condition["componentRef"]["name"]]["dag"]["tasks"])
    assert released == {"export", "verify", "publish"}
    assert not released & set(tasks)


def test_every_option_is_a_described_parameter(compiled: dict[str, Any]) -> None:
    parameters = compiled["root"]["inputDefinitions"]["parameters"]
    assert set(parameters) == set(OPTION_FIELDS)
    assert all(parameter.get("description") for parameter in parameters.values())
    assert parameters["backbone"]["defaultValue"] == "efficientnet_lite0"
    assert parameters["folds"]["defaultValue"] == DEFAULTS["folds"]


def test_the_last_step_runs_after_all_others_also_after_a_failure(compiled: dict[str, Any]) -> None:
    tasks = compiled["root"]["dag"]["tasks"]
    assert set(tasks) == {"steps", "conclude"}
    last = tasks["conclude"]
    assert last["dependentTasks"] == ["steps"]
    assert last["triggerPolicy"]["strategy"] == "ALL_UPSTREAM_TASKS_COMPLETED"
    # The state of the steps is that of KFP's metadata store, which does not show how they ended.
    assert not any("taskFinalStatus" in one for one in last["inputs"]["parameters"].values())
    assert "artifacts" not in last["inputs"]


def tasks_of(pipeline: dict[str, Any]) -> dict[str, Any]:
    """All tasks that run a step, by the step's name."""
    dags = [pipeline["root"], *pipeline["components"].values()]
    tasks = [task for dag in dags for task in dag.get("dag", {}).get("tasks", {}).items()]
    return {name: task for name, task in tasks if name in STEPS}


def test_the_steps_are_repeated_in_their_pods_not_by_argo(compiled: dict[str, Any]) -> None:
    tasks = tasks_of(compiled)
    assert set(tasks) == STEPS
    assert not any("retryPolicy" in task for task in tasks.values())
    assert {name.replace("-", "_") for name in tasks} <= set(RETRY_POLICIES)


def test_a_local_run_has_no_retries() -> None:
    from pipelines.pipeline import make_pipeline

    spec = json_format.MessageToDict(make_pipeline().pipeline_spec)
    assert not any("retryPolicy" in task for task in tasks_of(spec).values())


def test_only_steps_that_depend_on_the_destination_are_never_cached(
    compiled: dict[str, Any],
) -> None:
    tasks = tasks_of(compiled)
    never = {name for name, task in tasks.items() if not task["cachingOptions"].get("enableCache")}
    assert never == {"resolve", "record-verdict", "publish", "conclude"}


def test_no_component_demands_another_caching_than_the_pipeline_has(
    compiled: dict[str, Any],
) -> None:
    demands = set()
    for step in RETRY_POLICIES:
        module = import_module(f"components.{step}.component")
        if "Never cache" in (module.__doc__ or ""):
            demands.add(step.replace("_", "-"))
    tasks = tasks_of(compiled)
    cached = {name for name, task in tasks.items() if task["cachingOptions"].get("enableCache")}
    assert "publish" in demands
    assert not demands & cached


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


def test_no_step_runs_as_root(tmp_path: Path) -> None:
    file = tmp_path / "pipeline.yaml"
    compile_pipeline(recipe(), file)
    spec, platform = yaml.safe_load_all(file.read_text())
    pods = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert set(pods) == set(spec["deploymentSpec"]["executors"])
    assert [pod["securityContext"] for pod in pods.values()] == [{"runAsNonRoot": True}] * len(pods)
    compile_pipeline(recipe(), file.with_suffix(".json"))
    assert steps_of(json.loads(file.with_suffix(".json").read_text())) == STEPS


def test_the_command_warns_about_a_missing_destination(regraft: Regraft, tmp_path: Path) -> None:
    ended = regraft("compile", "digits", "-o", tmp_path / "pipeline.yaml")
    assert ended.code == 0
    assert "destination has no default" in ended.err


@pytest.mark.parametrize(
    "options",
    [("--hardware", "cpu"), ("--pvc", "models=/models"), ("--secret-env", "s3:key=KEY"),
     ("--secret-volume", "ca=/etc/ca")],
)  # fmt: skip
def test_a_json_file_with_kubernetes_settings_is_refused(
    regraft: Regraft, tmp_path: Path, options: tuple[str, str]
) -> None:
    file = tmp_path / "pipeline.json"
    ended = regraft("compile", "digits", "-o", file, *options)
    assert (ended.code, ended.out) == (2, "")
    assert len(ended.err.splitlines()) == 1
    assert not file.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--source", "./images"), "source: expected a URI, or a path in a mounted --pvc"),
        (("--destination", "/models"), "destination: expected a URI, or a path in a mounted"),
        (("--weights", "a.weights.h5"), "weights: expected a path in a mounted --pvc"),
        (("--backbone", "./my_model.keras"), "backbone: expected a path in a mounted --pvc"),
        (("--backbone", "s3://bucket/m.keras"), "backbone: expected a path or a file: URI"),
        (("--weights", "https://a/b.h5"), "weights: expected a path or a file: URI"),
        (("--work-dir", "s4://bucket/work"), "work_dir: expected a URI such as s3://"),
        (("--cut", "nothing"), "cut"),
    ],
)  # fmt: skip
def test_compile_has_the_checks_of_submit_and_writes_no_file(
    regraft: Regraft, tmp_path: Path, options: tuple[str, str], message: str
) -> None:
    file = tmp_path / "pipeline.yaml"
    compiled = regraft("compile", "digits", "-o", file, *options)
    sent = regraft("submit", "digits", "--dry-run", "--destination", "s3://a/b", *options)
    assert (compiled.code, sent.code) == (2, 2)
    assert message in compiled.err
    assert compiled.err == sent.err
    assert len(compiled.err.splitlines()) == 1
    assert not file.exists()


def test_another_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected a \.yaml"):
        compile_pipeline(recipe(), tmp_path / "pipeline.txt")
