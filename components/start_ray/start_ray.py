"""The step that starts the Ray cluster of a run on Kubernetes."""

from __future__ import annotations

import importlib.metadata

from regraft_core.kuberay.kubernetes_api import KubernetesApi
from regraft_core.kuberay.lifecycle import (
    check_rights,
    create_cluster,
    run_of_pod,
    wait_for_nodes,
)
from regraft_core.kuberay.network_policy import make_network_policy
from regraft_core.kuberay.ray_cluster import RayPod, cluster_name, make_ray_cluster
from regraft_core.runtime.errors import InputError
from regraft_core.runtime.step_reports import log_progress

POD_VARIABLE = "REGRAFT_POD"
LIMIT_S = 1200.0  # a new node with a GPU takes minutes, and then pulls the container image


def start_ray(
    api: KubernetesApi,
    run_id: str,
    pod_name: str,
    head: RayPod,
    worker: RayPod,
    *,
    nodes: int,
    limit_s: float = LIMIT_S,
    poll_s: float = 5.0,
) -> None:
    """Create the Ray cluster of a run, and wait until its nodes are ready.

    If not all nodes are ready within the limit, the run continues with those that are.

    Args:
        api: the API server.
        run_id: ID of the run.
        pod_name: name of this pod, whose owner will own the Ray cluster.
        head: pod of the head node.
        worker: pod of each worker node.
        nodes: number of worker nodes.
        limit_s: longest time to wait, in seconds.
        poll_s: seconds between two requests.

    Raises:
        InputError: KubeRay or a right is missing, or the container image has no Ray.
        RegraftError: no node was ready within the limit.
        UnavailableError: the API server does not respond.
    """
    version = ray_version()
    run = run_of_pod(api, run_id, pod_name)
    check_rights(api, run.service_account)
    cluster = make_ray_cluster(run, head, worker, nodes, version)
    create_cluster(api, cluster, make_network_policy(run))
    name = cluster_name(run_id)
    log_progress(f"start_ray: Ray cluster {name}, Ray {version}, {nodes} nodes")
    ready = wait_for_nodes(
        api, name, nodes, limit_s, lambda line: log_progress(f"start_ray: {line}"), poll_s
    )
    if ready < nodes:
        log_progress(f"start_ray: warning: continues with {ready} of {nodes} nodes; KubeRay adds "
                     "the others as soon as there are machines for them")  # fmt: skip


def ray_version() -> str:
    """Return the version of Ray in this container image, which the nodes run.

    Raises:
        InputError: it contains no Ray.
    """
    try:
        return importlib.metadata.version("ray")
    except importlib.metadata.PackageNotFoundError:
        raise InputError("ray_nodes: expected a container image with Ray, found none; build it "
                         "with the extra `ray`, or use --workers") from None  # fmt: skip
