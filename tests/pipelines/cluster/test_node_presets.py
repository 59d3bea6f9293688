"""The requests of each preset, read from the compiled file."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import json_format
from kfp.kubernetes.kubernetes_executor_config_pb2 import KubernetesExecutorConfig
from kfp.pipeline_spec import pipeline_spec_pb2

from components.resolve.step_options import step_options
from pipelines.cluster.compilation import compile_pipeline, prepare_recipe
from pipelines.cluster.node_presets import GPU, HEAVY_STEPS, PRESETS, find_preset
from pipelines.cluster.retry_policy import RETRY_POLICIES
from pipelines.recipes.recipe import make_recipe
from regraft_core.runtime.container_image import GPU_IMAGE, IMAGE
from regraft_core.runtime.errors import InputError

ACCELERATORS = {
    "nvidia": GPU, "nvidia-mig": "nvidia.com/mig-1g.10gb", "nvidia-shared": "nvidia.com/gpu.shared",
    "gke": GPU, "gke-shared": GPU, "eks": GPU,
}  # fmt: skip
GPU_PRESETS = tuple(ACCELERATORS)
STEPS = {"resolve", "ingest", "extract_features", "train_head", "fine_tune", "evaluate", "export",
         "verify", "publish", "record_verdict", "conclude"}  # fmt: skip


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, Any]]:
    """The pipeline and the Kubernetes part of every preset."""
    folder = tmp_path_factory.mktemp("compiled")
    return {name: tuple(_compile(name, folder / f"{name}.yaml")) for name in PRESETS}


def _compile(name: str, path: Path) -> list[Any]:
    options = {"sources": ("sample:digits",), "backbone": "efficientnet_lite0"}
    compile_pipeline(prepare_recipe(options, find_preset(name)), path, find_preset(name))
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
def test_the_file_has_the_format_of_kfp(compiled: dict[str, Any], name: str) -> None:
    pipeline, platform = compiled[name]
    spec = json_format.ParseDict(pipeline, pipeline_spec_pb2.PipelineSpec())
    assert spec.pipeline_info.name == "regraft"
    for pod in pods(platform).values():
        json_format.ParseDict(pod, KubernetesExecutorConfig())


@pytest.mark.parametrize("name", PRESETS)
def test_every_step_requests_its_node(compiled: dict[str, Any], name: str) -> None:
    pipeline, platform = compiled[name]
    requested = resources(pipeline)
    assert set(requested) == set(pods(platform)) == STEPS
    for step, node in ((step, find_preset(name).node(step)) for step in STEPS):
        assert requested[step]["resourceCpuRequest"] == node.cpu_request
        assert requested[step]["resourceMemoryLimit"] == node.memory_limit


@pytest.mark.parametrize("name", GPU_PRESETS)
def test_only_heavy_steps_request_a_gpu(compiled: dict[str, Any], name: str) -> None:
    pipeline, platform = compiled[name]
    gpu = {"resourceType": ACCELERATORS[name], "resourceCount": "1"}
    for step, requested in resources(pipeline).items():
        pod = pods(platform)[step]
        accelerator = requested.get("accelerator", {})
        if step in HEAVY_STEPS:
            assert {key: accelerator[key] for key in gpu} == gpu
            assert pod["tolerations"] == [
                {"key": GPU, "operator": "Exists", "effect": "NoSchedule"}
            ]
            assert pod["emptyDirMounts"][0]["mountPath"] == "/dev/shm"
        else:
            assert not accelerator
            assert "tolerations" not in pod
            (off,) = pod["nodeAffinity"][0]["matchExpressions"]
            assert off["operator"] in ("DoesNotExist", "NotIn")


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("nvidia", "nvidia.com/gpu.present"),
        ("nvidia-mig", "nvidia.com/gpu.present"),
        ("nvidia-shared", "nvidia.com/gpu.present"),
        ("gke", "cloud.google.com/gke-accelerator"),
        ("gke-shared", "cloud.google.com/gke-gpu-sharing-strategy"),
    ],
)
def test_a_label_selects_the_gpu_nodes(compiled: dict[str, Any], name: str, key: str) -> None:
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
def test_a_requested_gpu_is_required(compiled: dict[str, Any], name: str) -> None:
    pipeline, _ = compiled[name]
    parameter = pipeline["root"]["inputDefinitions"]["parameters"]["require_gpu"]
    assert parameter["defaultValue"] is (name in GPU_PRESETS)
    values = make_recipe(sources=("sample:digits",), require_gpu=True).arguments()
    options = step_options(values | {"workers": 1, "run_id": ""})
    assert all(options[step]["require_gpu"] for step in HEAVY_STEPS)


@pytest.mark.parametrize("name", PRESETS)
def test_steps_with_a_gpu_have_the_container_image_with_cuda(
    compiled: dict[str, Any], name: str
) -> None:
    executors = compiled[name][0]["deploymentSpec"]["executors"].values()
    expected = GPU_IMAGE if name in GPU_PRESETS else IMAGE
    assert {executor["container"]["image"] for executor in executors} == {expected}


@pytest.mark.parametrize("name", PRESETS)
def test_every_pod_has_time_for_all_attempts(compiled: dict[str, Any], name: str) -> None:
    for step, pod in pods(compiled[name][1]).items():
        assert int(pod["activeDeadlineSeconds"]) == RETRY_POLICIES[step].total_s


def test_an_option_overrides_the_preset() -> None:
    options = {"sources": ("sample:digits",), "require_gpu": False}
    assert prepare_recipe(options, find_preset("gke")).require_gpu is False


def test_json_is_refused_because_it_has_no_node_settings(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected a \.yaml file"):
        compile_pipeline(make_recipe(sources=("sample:digits",)), tmp_path / "p.json",
                         find_preset("cpu"))  # fmt: skip


def test_an_unknown_preset_gets_suggestions() -> None:
    with pytest.raises(InputError, match="unknown hardware 'nvida'; did you mean nvidia"):
        find_preset("nvida")


def test_a_preset_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        PRESETS["cpu"].heavy.accelerators = 8  # type: ignore[misc]
