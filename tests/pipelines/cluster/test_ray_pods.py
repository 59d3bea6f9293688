"""The Ray cluster of a run: its pods by preset, and where it is in the compiled pipeline."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from pydantic import ValidationError

from pipelines.cluster.compilation import compile_pipeline, prepare_recipe
from pipelines.cluster.node_presets import PRESETS, find_preset
from pipelines.cluster.pod_settings import make_pods
from pipelines.cluster.ray_connection import ray_variables
from pipelines.cluster.ray_pods import RAY_STEPS, make_ray_pods
from pipelines.cluster.submit import Settings, Submission, prepare
from regraft_core.kuberay.network_policy import make_network_policy
from regraft_core.kuberay.ray_cluster import OwnerReference, RayPod, Run, make_ray_cluster
from tests.command_line import Regraft

PODS = make_pods("ghcr.io/me/regraft-python:1", ("s3:secret=AWS_SECRET_ACCESS_KEY",),
                 ("ca=/etc/ca",), ("work=/data",), ray_nodes=8)  # fmt: skip
VALUES = {"sources": ("sample:digits",), "destination": "/data/models", "work_dir": "/data/work"}
OWNER = OwnerReference(api_version="argoproj.io/v1alpha1", kind="Workflow", name="w", uid="u")
RUN = Run("0f1e2d3c-0000-4000-8000-1234567890ab", OWNER, "default-editor")


def templates(preset: str) -> list[dict[str, Any]]:
    """Return the pod specs of head and worker in the manifest of a RayCluster."""
    cluster = make_ray_cluster(RUN, *make_ray_pods(find_preset(preset), PODS), 8, "2.60.0")
    spec = cluster.manifest()["spec"]
    assert spec["authOptions"] == {"mode": "token"}
    (workers,) = spec["workerGroupSpecs"]
    assert {workers[f"{name}eplicas"] for name in ("r", "minR", "maxR")} == {8}
    return [group["template"] for group in (spec["headGroupSpec"], workers)]


@pytest.mark.parametrize("preset", PRESETS)
def test_pods_have_what_steps_have_and_no_token_of_kubernetes(preset: str) -> None:
    for template in templates(preset):
        spec = template["spec"]
        (container,) = spec["containers"]
        assert container["image"] == PODS.image
        assert spec["serviceAccountName"] == "default-editor"
        assert spec["automountServiceAccountToken"] is False
        assert container["securityContext"]["runAsNonRoot"] is True
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        secret = {"secretKeyRef": {"name": "s3", "key": "secret"}}
        assert {"name": "AWS_SECRET_ACCESS_KEY", "valueFrom": secret} in container["env"]
        mounts = {one["mountPath"]: one["name"] for one in container["volumeMounts"]}
        assert {"/dev/shm", "/tmp", "/etc/ca", "/data"} == set(mounts)
        assert {one["name"] for one in spec["volumes"]} == set(mounts.values())
        for probe in ("livenessProbe", "readinessProbe"):
            assert container[probe]["exec"]["command"][0] == "python"


@pytest.mark.parametrize("preset", PRESETS)
def test_workers_request_the_heavy_node_and_the_head_no_gpu(preset: str) -> None:
    head, worker = (template["spec"] for template in templates(preset))
    node = find_preset(preset).heavy
    resources = worker["containers"][0]["resources"]
    assert resources["requests"] == {"cpu": node.cpu_request, "memory": node.memory_request}
    gpus = {name: count for name, count in resources["limits"].items() if "/" in name}
    assert gpus == ({node.accelerator: "1"} if node.accelerators else {})
    assert worker.get("nodeSelector", {}) == node.selectors
    assert ("affinity" in worker) is bool(node.requirements)
    assert not any("/" in name for name in head["containers"][0]["resources"]["limits"])


@pytest.mark.parametrize("preset", ["gke", "eks"])
def test_pods_and_policy_match_the_schema_of_kubernetes(preset: str) -> None:
    kubernetes_validate.validate(make_network_policy(RUN).manifest(), "1.31", strict=True)
    for template in templates(preset):
        pod = {"apiVersion": "v1", "kind": "Pod", **template}
        kubernetes_validate.validate(pod, "1.31", strict=True)


def test_ray_s_objects_fit_in_the_shared_memory_and_the_head_gets_no_tasks() -> None:
    head, worker = make_ray_pods(find_preset("nvidia"), PODS)
    assert head.ray_start_params["num-cpus"] == "0"
    assert worker.ray_start_params["num-cpus"] == "3"  # what is requested, not the limit
    for preset, gpus in {"nvidia-mig": "1", "gke-shared": "1", "cpu": None}.items():
        assert make_ray_pods(find_preset(preset), PODS)[1].ray_start_params.get("num-gpus") == gpus
    volume = next(one for one in worker.spec.volumes if one.name == "shared-memory")
    assert volume.empty_dir is not None
    assert (volume.empty_dir.size_limit, volume.empty_dir.medium) == ("2Gi", "Memory")
    assert int(worker.ray_start_params["object-store-memory"]) < 2 * 2**30


def test_only_pods_of_the_run_reach_the_cluster() -> None:
    policy = make_network_policy(RUN).manifest()["spec"]
    assert policy["podSelector"]["matchLabels"] == {"ray.io/cluster": f"regraft-{RUN.id}"}
    assert policy["ingress"] == [
        {"from": [{"podSelector": {"matchLabels": {"pipeline/runid": RUN.id}}}]}
    ]
    # So the pods of the cluster have the label as well.
    assert all(one["metadata"]["labels"]["pipeline/runid"] == RUN.id for one in templates("cpu"))


def test_kfp_s_numbers_become_those_of_kubernetes() -> None:
    pod = make_ray_pods(find_preset("gke"), PODS)[1]
    assert RayPod.model_validate(with_floats(pod.manifest())) == pod
    with pytest.raises(ValidationError, match="sizeLimits"):
        RayPod.model_validate({**pod.manifest(), "sizeLimits": "1Gi"})


def with_floats(value: Any) -> Any:
    """Return a value as a step gets it: all numbers in a dict are floats."""
    if isinstance(value, dict):
        return {key: with_floats(one) for key, one in value.items()}
    if isinstance(value, list):
        return [with_floats(one) for one in value]
    return float(value) if type(value) is int else value


@pytest.fixture(scope="module")
def submission() -> Submission:
    return prepare(VALUES, Settings(pods=PODS, hardware=find_preset("nvidia")))


@pytest.fixture(scope="module")
def documents(submission: Submission) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(submission.pipeline))


def test_the_cluster_starts_before_the_first_step_that_uses_it(
    documents: list[dict[str, Any]],
) -> None:
    tasks = documents[0]["components"]["comp-steps"]["dag"]["tasks"]
    assert tasks["start-ray"]["dependentTasks"] == ["resolve"]
    assert not tasks["start-ray"]["cachingOptions"]
    assert "start-ray" in tasks["ingest"]["dependentTasks"]
    # Nothing of the run is among its inputs, so the cache is not affected.
    assert set(tasks["ingest"]["inputs"]["parameters"]) == {"options"}


def test_the_last_step_knows_of_the_cluster(documents: list[dict[str, Any]]) -> None:
    inputs = documents[0]["root"]["dag"]["tasks"]["conclude"]["inputs"]["parameters"]
    assert inputs["ray_nodes"] == {"componentInputParameter": "ray_nodes"}


def test_pods_learn_their_run_and_their_name(documents: list[dict[str, Any]]) -> None:
    pods = documents[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    variables = {
        name.removeprefix("exec-").replace("-", "_"): (one["name"], one["fieldPath"])
        for name, pod in pods.items()
        for one in pod.get("fieldPathAsEnv", [])
    }
    run = ("REGRAFT_RAY_RUN", "metadata.labels['pipeline/runid']")
    assert variables == {"start_ray": ("REGRAFT_POD", "metadata.name")} | dict.fromkeys(
        RAY_STEPS, run
    )


def test_all_sizes_of_clusters_share_a_version_of_the_pipeline(
    submission: Submission,
) -> None:
    other = prepare(VALUES, replace(submission.settings, pods=replace(PODS, ray_nodes=64)))
    assert other.version == submission.version
    assert (submission.parameters["ray_nodes"], other.parameters["ray_nodes"]) == (8, 64)


def test_steps_get_the_address_of_an_existing_cluster(tmp_path: Path) -> None:
    file, pods = tmp_path / "pipeline.yaml", replace(PODS, ray_nodes=0, ray="ray://head:10001")
    compile_pipeline(prepare_recipe(VALUES, pods=pods), file, pods=pods)
    executors = next(yaml.safe_load_all(file.read_text()))["deploymentSpec"]["executors"]
    variables = {
        name.removeprefix("exec-").replace("-", "_"): one["container"]["env"]
        for name, one in executors.items()
        if one["container"].get("env")
    }
    address = [{"name": "REGRAFT_RAY", "value": "ray://head:10001"}]
    assert variables == dict.fromkeys(RAY_STEPS, address)
    assert ray_variables({"REGRAFT_RAY": "ray://head:10001", "REGRAFT_RAY_RUN": RUN.id}) == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--ray-nodes", 4, "--workers", 4, "--hardware", "cpu"),
         "expected one of --ray-nodes and --workers, got 4 and 4 workers"),
        (("--ray", "ray://head:10001", "--ray-nodes", 4), "expected one of --ray-nodes and --ray"),
        (("--ray", "ray://head:10001", "--workers", 4), "expected one of --ray and --workers"),
        (("--ray", "head:10001"), "ray: expected an address such as ray://host:10001"),
        (("--ray", "ray://head:10001"), "ray: expected --work-dir in a mounted --pvc"),
        (("--ray-nodes", 4), "ray_nodes: expected --hardware"),
        (("--ray-nodes", 4, "--hardware", "cpu"),
         "ray_nodes: expected --work-dir in a mounted --pvc, through which the nodes share files"),
        (("--ray-nodes", 4, "--hardware", "cpu", "--work-dir", "s3://bucket/work"),
         "ray_nodes: expected --work-dir in a mounted --pvc"),
        (("--ray-nodes", -1, "--hardware", "cpu"), "ray_nodes: expected 0 to 1024, got -1"),
        (("--ray-nodes", 4, "--resume", "run-1", "--host", "http://127.0.0.1:9"),
         "resume: expected no --ray-nodes"),
    ],
)  # fmt: skip
def test_settings_that_exclude_each_other_are_one_line(
    regraft: Regraft, options: tuple[Any, ...], message: str
) -> None:
    recipe = () if "--resume" in options else ("digits", "--destination", "s3://a/b", "--dry-run")
    ended = regraft("submit", *recipe, *options)
    assert (ended.code, ended.out) == (2, "")
    assert message in ended.err
    assert len(ended.err.splitlines()) == 1


def test_a_json_file_cannot_contain_a_ray_cluster(regraft: Regraft, tmp_path: Path) -> None:
    file = tmp_path / "pipeline.json"
    ended = regraft("compile", "digits", "-o", file, "--hardware", "cpu", "--ray-nodes", 2)
    assert ended.code == 2
    assert not file.exists()
