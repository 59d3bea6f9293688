"""Creates, watches and removes the Ray cluster of a run, and connects to it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from regraft_core.kuberay.kubernetes_api import Collection, KubernetesApi, decode_secret
from regraft_core.kuberay.network_policy import NetworkPolicy
from regraft_core.kuberay.ray_cluster import (
    CLUSTER_LABEL,
    OwnerReference,
    RayCluster,
    Run,
    cluster_address,
    cluster_name,
)
from regraft_core.parallel.ray_executor import RAY_VARIABLE
from regraft_core.runtime.errors import InputError, RegraftError
from regraft_core.runtime.printable import one_line

GROUP = "/apis/ray.io/v1"
CLUSTERS = Collection("ray.io", "v1", "rayclusters")
POLICIES = Collection("networking.k8s.io", "v1", "networkpolicies")
SECRETS, PODS = Collection("", "v1", "secrets"), Collection("", "v1", "pods")
TOKEN_KEY = "auth_token"  # noqa: S105 - the key of KubeRay's secret, not a secret
RIGHTS = tuple(
    (verb, collection)
    for collection, verbs in (
        (CLUSTERS, ("create", "get", "delete")),
        (POLICIES, ("create", "get", "delete")),
        (SECRETS, ("get",)),
        (PODS, ("get", "list")),
    )
    for verb in verbs
)


@dataclass(frozen=True)
class Readiness:
    """How many nodes of a cluster are ready, and why others are not."""

    head: bool
    workers: int
    reason: str = ""


def check_rights(api: KubernetesApi, service_account: str) -> None:
    """Check that KubeRay is installed, and that the service account may create Ray clusters.

    Raises:
        InputError: it is not, or may not.
        UnavailableError: the API server does not respond.
    """
    if api.find(GROUP) is None:
        raise InputError(
            "ray_nodes: expected KubeRay in this Kubernetes cluster, found no ray.io/v1; install "
            "its operator, or use --workers"
        )
    missing = [f"{verb} {kind}" for verb, kind in RIGHTS if not api.allows(verb, kind)]
    if missing:
        raise InputError(
            f"ray_nodes: service account {service_account or 'default'!r} in namespace "
            f"{api.namespace} lacks the rights to {', '.join(missing)}; add a role as in "
            "docs/kubeflow.md, or use --workers"
        )


def run_of_pod(api: KubernetesApi, run_id: str, pod_name: str) -> Run:
    """Return the run that a pod belongs to, with the Argo workflow that owns the pod.

    Raises:
        InputError: the pod has no such owner, or no permission to read it.
        UnavailableError: the API server does not respond.
    """
    pod = api.find(PODS.path(api.namespace, pod_name)) or {}
    owners = pod.get("metadata", {}).get("ownerReferences", [])
    for one in owners:
        if one["kind"] == "Workflow":
            owner = OwnerReference(
                api_version=one["apiVersion"], kind=one["kind"], name=one["name"], uid=one["uid"]
            )
            return Run(run_id, owner, pod.get("spec", {}).get("serviceAccountName", ""))
    raise InputError(f"ray_nodes: expected pod {pod_name} to belong to an Argo workflow, which "
                     "would remove the Ray cluster, found none")  # fmt: skip


def create_cluster(api: KubernetesApi, cluster: RayCluster, policy: NetworkPolicy) -> None:
    """Create a Ray cluster and its policy, or keep those of an earlier attempt.

    Raises:
        InputError: no permission, the server refuses the manifest, or KubeRay has no
            authentication.
        UnavailableError: the API server does not respond.
    """
    # The policy is first, so that the cluster is never without it.
    api.create(POLICIES, policy.manifest())
    created = api.create(CLUSTERS, cluster.manifest())
    # An older operator has no such field, and the server drops it: anyone could run code.
    if created.get("spec", {}).get("authOptions", {}).get("mode") != "token":
        remove_cluster(api, cluster.metadata.name)
        raise InputError("ray_nodes: expected KubeRay 1.5.1 or later, whose clusters have tokens, "
                         "found an older one; upgrade its operator, or use --workers")  # fmt: skip


def wait_for_nodes(
    api: KubernetesApi,
    name: str,
    nodes: int,
    limit_s: float,
    report: Callable[[str], object],
    poll_s: float = 5.0,
) -> int:
    """Wait until all nodes are ready; after the limit, at least the head and one worker.

    Args:
        api: the API server.
        name: of the Ray cluster.
        nodes: number of worker nodes.
        limit_s: longest time to wait, in seconds.
        report: gets a line for each change.
        poll_s: seconds between two requests.

    Returns:
        The number of workers that are ready.

    Raises:
        RegraftError: no worker is ready within the limit, or the cluster was removed.
        UnavailableError: the API server does not respond.
    """
    deadline = time.monotonic() + limit_s
    last = None
    while True:
        found = read_readiness(api, name, nodes)
        if found != last:
            last = found
            reason = f"; {found.reason}" if found.reason else ""
            report(f"{found.workers} of {nodes} nodes are ready{reason}")
        if found.head and found.workers >= nodes:
            return found.workers
        if time.monotonic() >= deadline:
            break
        threading.Event().wait(poll_s)
    if found.head and found.workers:
        return found.workers
    reason = found.reason or "KubeRay's operator has made no pods; check that it runs"
    raise RegraftError(f"ray_nodes: no node was ready within {limit_s:g} s: {reason}")


def read_readiness(api: KubernetesApi, name: str, nodes: int) -> Readiness:
    """Return how many nodes are ready, and the reason of Kubernetes for one that is not.

    Raises:
        RegraftError: the cluster was removed.
        UnavailableError: the API server does not respond.
    """
    cluster = api.find(CLUSTERS.path(api.namespace, name))
    if cluster is None:
        raise RegraftError(f"ray_nodes: Ray cluster {name} was removed")
    status = cluster.get("status", {})
    conditions = {one["type"]: one for one in status.get("conditions", [])}
    head = conditions.get("HeadPodReady", {}).get("status") == "True"
    workers = int(status.get("readyWorkerReplicas", 0))
    if head and workers >= nodes:
        return Readiness(head, workers)
    failure = conditions.get("ReplicaFailure", {})
    reason = failure.get("message", "") if failure.get("status") == "True" else ""
    listed = api.find(f"{PODS.path(api.namespace)}?labelSelector={CLUSTER_LABEL}%3D{name}") or {}
    reasons = (waiting_reason(pod) for pod in listed.get("items", []))
    return Readiness(head, workers, one_line(reason or next(filter(None, reasons), ""))[:300])


def waiting_reason(pod: dict[str, Any]) -> str:
    """Return why a pod is not ready, or an empty text."""
    name, status = pod["metadata"]["name"], pod.get("status", {})
    containers = status.get("initContainerStatuses", []) + status.get("containerStatuses", [])
    for one in containers:
        waiting = one.get("state", {}).get("waiting", {})
        if waiting and waiting.get("reason") not in ("PodInitializing", "ContainerCreating"):
            return f"{name}: {waiting.get('reason')}: {waiting.get('message', '')}"
    for one in status.get("conditions", []):
        if one["type"] == "PodScheduled" and one["status"] == "False":
            return f"{name}: {one.get('reason')}: {one.get('message', '')}"
    return ""


def remove_cluster(api: KubernetesApi, name: str) -> bool:
    """Remove a Ray cluster, if it exists, and its policy; return whether it existed.

    Raises:
        InputError: no permission.
        UnavailableError: the API server does not respond.
    """
    existed = api.delete(CLUSTERS, name)
    api.delete(POLICIES, name)
    return existed


def client_variables(api: KubernetesApi, run_id: str) -> dict[str, str]:
    """Return the environment variables with which a step finds the cluster of a run.

    Raises:
        InputError: the cluster has no token, or no permission to read it.
        UnavailableError: the API server does not respond.
    """
    name = cluster_name(run_id)
    token = decode_secret(api.find(SECRETS.path(api.namespace, name)) or {}, TOKEN_KEY)
    if not token:
        raise InputError(f"ray_nodes: expected the token of Ray cluster {name} in the secret of "
                         "this name, found none")  # fmt: skip
    return {
        RAY_VARIABLE: cluster_address(run_id, api.namespace),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": token,
    }
