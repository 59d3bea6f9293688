"""The Ray cluster of a run against a local server with the Kubernetes API."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.conclude.conclude import end_ray
from components.start_ray.start_ray import ray_version, start_ray
from pipelines.cluster.node_presets import find_preset
from pipelines.cluster.pod_settings import make_pods
from pipelines.cluster.ray_connection import ray_variables
from pipelines.cluster.ray_pods import make_ray_pods
from regraft_core.kuberay.kubernetes_api import KubernetesApi, api_of_pod
from regraft_core.kuberay.lifecycle import (
    CLUSTERS,
    check_rights,
    client_variables,
    create_cluster,
    remove_cluster,
    run_of_pod,
    wait_for_nodes,
)
from regraft_core.kuberay.network_policy import make_network_policy
from regraft_core.kuberay.ray_cluster import RayCluster, make_ray_cluster
from regraft_core.runtime.errors import InputError, RegraftError, UnavailableError, may_pass
from tests.kubernetes_server import NAMESPACE, KubernetesServer

RUN_ID = "0f1e2d3c-0000-4000-8000-1234567890ab"
NAME = f"regraft-{RUN_ID}"
POD = "regraft-x1-start-ray"
WORKFLOW = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": "regraft-x1",
            "uid": "uid-1"}  # fmt: skip


@pytest.fixture
def server() -> Iterator[KubernetesServer]:
    with KubernetesServer() as server:
        server.add_pod(POD, spec={"serviceAccountName": "default-editor"})
        server.objects["pods", POD]["metadata"]["ownerReferences"] = [WORKFLOW]
        yield server


@pytest.fixture
def api(server: KubernetesServer, tmp_path: Path) -> KubernetesApi:
    return server.api(tmp_path)


def make_cluster(api: KubernetesApi, nodes: int = 2) -> RayCluster:
    pods = make_ray_pods(find_preset("cpu"), make_pods("regraft-python:1"))
    run = run_of_pod(api, RUN_ID, POD)
    cluster = make_ray_cluster(run, *pods, nodes, "2.60.0")
    create_cluster(api, cluster, make_network_policy(run))
    return cluster


def set_ready(cluster: dict[str, Any], workers: int, *, head: bool = True) -> None:
    ready = {"type": "HeadPodReady", "status": "True" if head else "False"}
    cluster["status"] = {"conditions": [ready], "readyWorkerReplicas": workers}


def test_a_cluster_belongs_to_the_workflow_of_its_run(
    server: KubernetesServer, api: KubernetesApi
) -> None:
    check_rights(api, "default-editor")
    make_cluster(api)
    created = server.objects["rayclusters", NAME]
    assert created["metadata"]["ownerReferences"] == [WORKFLOW]
    assert server.objects["networkpolicies", NAME]["metadata"]["ownerReferences"] == [WORKFLOW]
    groups = [created["spec"]["headGroupSpec"], *created["spec"]["workerGroupSpecs"]]
    accounts = [one["template"]["spec"]["serviceAccountName"] for one in groups]
    assert accounts == ["default-editor"] * 2
    # The policy is there before the first pod.
    posts = [one.rpartition("/")[2] for one in server.requests if one.startswith("POST")]
    assert posts[-2:] == ["networkpolicies", "rayclusters"]


def test_a_repeated_attempt_keeps_the_cluster_of_the_first(
    server: KubernetesServer, api: KubernetesApi
) -> None:
    make_cluster(api)
    server.objects["rayclusters", NAME]["status"] = {"readyWorkerReplicas": 1}
    make_cluster(api)
    assert server.objects["rayclusters", NAME]["status"] == {"readyWorkerReplicas": 1}


def test_the_wait_ends_when_all_nodes_are_ready(
    server: KubernetesServer, api: KubernetesApi
) -> None:
    make_cluster(api)
    states = iter([(0, False), (0, True), (1, True), (2, True)])

    def operate(cluster: dict[str, Any]) -> None:
        workers, head = next(states)
        set_ready(cluster, workers, head=head)

    server.operator = operate
    lines: list[str] = []
    assert wait_for_nodes(api, NAME, 2, 60, lines.append, 0) == 2
    assert lines == ["0 of 2 nodes are ready"] * 2 + [f"{n} of 2 nodes are ready" for n in (1, 2)]


def test_the_run_continues_with_the_nodes_that_are_ready(
    server: KubernetesServer, api: KubernetesApi
) -> None:
    make_cluster(api)
    server.operator = lambda cluster: set_ready(cluster, 1)
    assert wait_for_nodes(api, NAME, 2, 0, lambda _: None, 0) == 1


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({}, "KubeRay's operator has made no pods"),
        ({"containerStatuses": [{"state": {"waiting": {
            "reason": "ImagePullBackOff", "message": "not\nfound"}}}]},
         "node-1: ImagePullBackOff: not found"),
        ({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                          "message": "0/3 nodes: insufficient nvidia.com/gpu"}]},
         "node-1: Unschedulable: 0/3 nodes: insufficient nvidia.com/gpu"),
    ],
)  # fmt: skip
def test_without_a_node_the_reason_of_kubernetes_is_reported(
    server: KubernetesServer, api: KubernetesApi, status: dict[str, Any], expected: str
) -> None:
    make_cluster(api)
    server.add_pod("node-1", status=status)
    server.objects["pods", "node-1"]["metadata"]["labels"] = {"ray.io/cluster": NAME}
    server.add_pod("other", status={"conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "of another cluster"}]})  # fmt: skip
    with pytest.raises(RegraftError) as caught:
        wait_for_nodes(api, NAME, 2, 0, lambda _: None, 0)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_kuberay_and_missing_rights_are_known_before_a_cluster_is_created(
    server: KubernetesServer, api: KubernetesApi
) -> None:
    server.denied = {("create", "rayclusters"), ("get", "secrets")}
    with pytest.raises(InputError, match=r"'pipeline-runner' in namespace team lacks the rights to "
                       r"create rayclusters\.ray\.io, get secrets; ") as caught:  # fmt: skip
        check_rights(api, "pipeline-runner")
    assert not may_pass(caught.value)
    server.has_kuberay = False
    with pytest.raises(InputError, match=r"expected KubeRay .* found no ray\.io/v1"):
        check_rights(api, "pipeline-runner")
    assert not [kind for kind, _ in server.objects if kind != "pods"]


def test_a_cluster_without_authentication_is_removed(
    server: KubernetesServer, api: KubernetesApi
) -> None:
    server.drops_fields = ("authOptions",)
    with pytest.raises(InputError, match=r"expected KubeRay 1\.5\.1 or later"):
        make_cluster(api)
    assert ("rayclusters", NAME) not in server.objects
    assert ("networkpolicies", NAME) not in server.objects


def test_a_pod_without_a_workflow_creates_nothing(
    server: KubernetesServer, api: KubernetesApi
) -> None:
    with pytest.raises(InputError, match="to belong to an Argo workflow"):
        run_of_pod(api, RUN_ID, "another-pod")


def test_the_last_step_removes_the_cluster_also_twice(
    server: KubernetesServer, api: KubernetesApi
) -> None:
    make_cluster(api)
    assert end_ray(api, RUN_ID) == f"conclude: removed Ray cluster {NAME}"
    assert not [kind for kind, _ in server.objects if kind not in ("pods", "secrets")]
    assert end_ray(api, RUN_ID) == f"conclude: found no Ray cluster {NAME}"


def test_a_policy_of_a_cluster_that_was_never_made_is_removed(
    server: KubernetesServer, api: KubernetesApi
) -> None:
    make_cluster(api)
    del server.objects["rayclusters", NAME]
    assert not remove_cluster(api, NAME)
    assert ("networkpolicies", NAME) not in server.objects


def test_steps_get_address_and_token_by_variables(
    server: KubernetesServer, api: KubernetesApi
) -> None:
    with pytest.raises(InputError, match="expected the token"):
        client_variables(api, RUN_ID)
    make_cluster(api)
    assert client_variables(api, RUN_ID) == {
        "REGRAFT_RAY": f"ray://{NAME}-head-svc.{NAMESPACE}.svc:10001",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "secret-of-the-cluster",
    }
    assert ray_variables({}) == {}


def test_a_server_that_fails_for_a_moment_is_asked_again(
    server: KubernetesServer, api: KubernetesApi
) -> None:
    server.faults = [503, 500]
    make_cluster(api)
    server.faults = [503] * 5
    with pytest.raises(UnavailableError, match="503: failed on purpose") as caught:
        remove_cluster(api, NAME)
    assert may_pass(caught.value)


def test_a_refused_token_is_one_line_without_the_token(
    server: KubernetesServer, tmp_path: Path
) -> None:
    api = server.api(tmp_path, "another-token")
    with pytest.raises(InputError, match="401: Unauthorized") as caught:
        api.find(CLUSTERS.path(NAMESPACE, NAME))
    assert "another-token" not in str(caught.value)


def test_only_a_pod_has_the_api(tmp_path: Path) -> None:
    environ = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}
    with pytest.raises(InputError, match="expected a pod with the token of a service account"):
        api_of_pod(environ, tmp_path)
    (tmp_path / "namespace").write_text("team\n")
    found = api_of_pod(environ, tmp_path)
    assert (found.host, found.namespace) == ("https://[fd00::1]:443", "team")
    with pytest.raises(InputError, match="expected a pod"):
        ray_variables({"REGRAFT_RAY_RUN": RUN_ID}, tmp_path)


def test_a_container_image_without_ray_is_refused_before_anything_is_sent(
    server: KubernetesServer, api: KubernetesApi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("sys.path", [str(tmp_path)])  # no package is installed there
    with pytest.raises(InputError, match="expected a container image with Ray"):
        ray_version()
    with pytest.raises(InputError, match="expected a container image with Ray"):
        start_ray(api, RUN_ID, POD, *make_ray_pods(find_preset("cpu"), make_pods("python:1")),
                  nodes=2)  # fmt: skip
    assert server.requests == []


def test_the_step_starts_the_cluster(
    server: KubernetesServer,
    api: KubernetesApi,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    installed = tmp_path / "ray-2.60.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: ray\nVersion: 2.60.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    server.operator = lambda cluster: set_ready(cluster, 1)
    pods = make_ray_pods(find_preset("cpu"), make_pods("python:1"))
    start_ray(api, RUN_ID, POD, *pods, nodes=2, limit_s=0, poll_s=0)
    created = server.objects["rayclusters", NAME]["spec"]
    assert created["rayVersion"] == "2.60.0"
    assert created["workerGroupSpecs"][0]["replicas"] == 2
    assert "warning: continues with 1 of 2 nodes" in capsys.readouterr().out
