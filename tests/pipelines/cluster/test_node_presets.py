"""What each preset asks of Kubernetes, read from the compiled file."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import json_format
from kfp.kubernetes.kubernetes_executor_config_pb2 import KubernetesExecutorConfig
from kfp.pipeline_spec import pipeline_spec_pb2

from pipelines.cluster.compilation import compile_pipeline
from pipelines.cluster.node_presets import GPU, HEAVY_STEPS, PRESETS, find_preset
from pipelines.cluster.retry_policy import RETRY_POLICIES
from regraft_core.runtime.container_image import GPU_IMAGE, IMAGE
from regraft_core.runtime.errors import InputError

GPU_PRESETS = ("nvidia", "gke", "eks")
STEPS = {"ingest", "extract_features", "train_head", "fine_tune", "evaluate", "export", "verify",
         "publish", "conclude"}  # fmt: skip


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, Any]]:
    """The pipeline and the Kubernetes part of every preset."""
    folder = tmp_path_factory.mktemp("compiled")
    return {name: tuple(_compile(name, folder / f"{name}.yaml")) for name in PRESETS}


def _compile(name: str, path: Path) -> list[Any]:
    compile_pipeline({"backbone": "efficientnet_lite0"}, path, find_preset(name))
    return list(yaml.safe_load_all(path.read_text()))


def step_of(executor: str) -> str:
    return executor.removeprefix("exec-").replace("-", "_")


def resources(pipeline: Any) -> dict[str, Any]:
    executors = pipeline["deploymentSpec"]["executors"]
    return {step_of(name): spec["container"]["resources"] for name, spec in executors.items()}


def pods(platform: Any) -> dict[str, Any]:
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    return {step_of(name): spec for name, spec in executors.items()}


@pytest.mark.parametrize("name", PRESETS)
def test_kfps_own_format_takes_it(compiled: dict[str, Any], name: str) -> None:
    pipeline, platform = compiled[name]
    spec = json_format.ParseDict(pipeline, pipeline_spec_pb2.PipelineSpec())
    assert spec.pipeline_info.name == "regraft"
    for pod in pods(platform).values():
        json_format.ParseDict(pod, KubernetesExecutorConfig())


@pytest.mark.parametrize("name", PRESETS)
def test_every_step_states_what_it_needs(compiled: dict[str, Any], name: str) -> None:
    pipeline, platform = compiled[name]
    asked = resources(pipeline)
    assert set(asked) == set(pods(platform)) == STEPS
    for step, node in ((step, find_preset(name).node(step)) for step in STEPS):
        assert asked[step]["resourceCpuRequest"] == node.cpu_request
        assert asked[step]["resourceMemoryLimit"] == node.memory_limit


@pytest.mark.parametrize("name", GPU_PRESETS)
def test_the_heavy_steps_take_a_gpu_and_no_other_does(compiled: dict[str, Any], name: str) -> None:
    pipeline, platform = compiled[name]
    wanted = {"resourceType": GPU, "resourceCount": "1"}
    for step, asked in resources(pipeline).items():
        pod = pods(platform)[step]
        given = asked.get("accelerator", {})
        if step in HEAVY_STEPS:
            assert {key: given[key] for key in wanted} == wanted
            assert pod["tolerations"] == [
                {"key": GPU, "operator": "Exists", "effect": "NoSchedule"}
            ]
            assert pod["emptyDirMounts"][0]["mountPath"] == "/dev/shm"
        else:
            assert not given
            assert "tolerations" not in pod
            (off,) = pod["nodeAffinity"][0]["matchExpressions"]
            assert off["operator"] in ("DoesNotExist", "NotIn")


@pytest.mark.parametrize(
    ("name", "key"),
    [("nvidia", "nvidia.com/gpu.present"), ("gke", "cloud.google.com/gke-accelerator")],
)
def test_a_label_leads_to_the_gpu_nodes(compiled: dict[str, Any], name: str, key: str) -> None:
    for step, pod in pods(compiled[name][1]).items():
        labels = pod.get("nodeSelector", {}).get("labels", {})
        assert (key in labels) is (step in HEAVY_STEPS)


def test_on_eks_light_and_heavy_steps_share_no_instance_type(compiled: dict[str, Any]) -> None:
    rules = {step: pod["nodeAffinity"][0]["matchExpressions"][0]
             for step, pod in pods(compiled["eks"][1]).items()}  # fmt: skip
    heavy = {tuple(rules[step]["values"]) for step in HEAVY_STEPS}
    light = {tuple(rules[step]["values"]) for step in STEPS - HEAVY_STEPS}
    assert heavy == light
    assert {rules[step]["operator"] for step in HEAVY_STEPS} == {"In"}
    assert {rules[step]["operator"] for step in STEPS - HEAVY_STEPS} == {"NotIn"}


@pytest.mark.parametrize("name", PRESETS)
def test_a_missing_gpu_fails_where_one_was_asked_for(compiled: dict[str, Any], name: str) -> None:
    pipeline, _ = compiled[name]
    parameter = pipeline["root"]["inputDefinitions"]["parameters"]["require_gpu"]
    assert parameter["defaultValue"] is (name in GPU_PRESETS)
    for step in HEAVY_STEPS:
        inputs = pipeline["components"][f"comp-{step.replace('_', '-')}"]["inputDefinitions"]
        assert "require_gpu" in inputs["parameters"]


@pytest.mark.parametrize("name", PRESETS)
def test_steps_with_a_gpu_run_in_the_image_with_cuda(compiled: dict[str, Any], name: str) -> None:
    executors = compiled[name][0]["deploymentSpec"]["executors"].values()
    expected = GPU_IMAGE if name in GPU_PRESETS else IMAGE
    assert {executor["container"]["image"] for executor in executors} == {expected}


@pytest.mark.parametrize("name", PRESETS)
def test_every_try_has_a_deadline(compiled: dict[str, Any], name: str) -> None:
    for step, pod in pods(compiled[name][1]).items():
        assert int(pod["activeDeadlineSeconds"]) == RETRY_POLICIES[step].timeout_s


def test_a_value_of_the_users_stands_over_the_presets(tmp_path: Path) -> None:
    compile_pipeline({"require_gpu": False}, tmp_path / "p.yaml", find_preset("gke"))
    pipeline = next(yaml.safe_load_all((tmp_path / "p.yaml").read_text()))
    parameters = pipeline["root"]["inputDefinitions"]["parameters"]
    assert parameters["require_gpu"]["defaultValue"] is False


def test_json_is_refused_as_it_cannot_hold_the_nodes(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected a \.yaml file"):
        compile_pipeline({}, tmp_path / "p.json", find_preset("cpu"))


def test_an_unknown_preset_names_near_ones() -> None:
    with pytest.raises(InputError, match="unknown hardware 'nvida'; did you mean nvidia"):
        find_preset("nvida")


def test_a_profile_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        PRESETS["cpu"].heavy.accelerators = 8  # type: ignore[misc]
