"""The RayCluster of a run, with the fields of KubeRay's API `ray.io/v1` that are used.

Fields and behavior are those of KubeRay 1.7 (`ray-operator/apis/ray/v1/raycluster_types.go` and
`ray-operator/controllers/ray`): KubeRay adds the command `ray start`, a service for the head, and
for `authOptions` the secret with the token that every client needs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from regraft_core.kuberay.pod import KubernetesModel, PodMetadata, PodSpec, PodTemplate

RUN_LABEL = "pipeline/runid"
"""Label of all pods of a run; Kubeflow Pipelines sets it for steps."""
CLUSTER_LABEL = "ray.io/cluster"
"""Label of all pods of a Ray cluster; KubeRay sets it."""
CLIENT_PORT = 10001
WORKER_GROUP = "nodes"
_NO_SIDECAR = {"sidecar.istio.io/inject": "false"}  # as KFP for the pods of steps


class OwnerReference(KubernetesModel):
    """The object with which Kubernetes removes this one."""

    api_version: str
    kind: str
    name: str
    uid: str


class Metadata(KubernetesModel):
    """Name, labels and owners of an object."""

    name: str
    labels: dict[str, str]
    owner_references: tuple[OwnerReference, ...]


class AuthOptions(KubernetesModel):
    """Only clients with the token of the cluster are served."""

    mode: Literal["token"] = "token"


class HeadGroup(KubernetesModel):
    """The head node."""

    ray_start_params: dict[str, str]
    service_type: Literal["ClusterIP"] = "ClusterIP"
    template: PodTemplate


class WorkerGroup(KubernetesModel):
    """Worker nodes of one kind; without autoscaling KubeRay requires all three numbers."""

    group_name: str
    replicas: int
    min_replicas: int
    max_replicas: int
    ray_start_params: dict[str, str]
    template: PodTemplate


class RayClusterSpec(KubernetesModel):
    """One head and one group of workers."""

    ray_version: str
    auth_options: AuthOptions = AuthOptions()
    head_group_spec: HeadGroup
    worker_group_specs: tuple[WorkerGroup]


class RayCluster(KubernetesModel):
    """A Ray cluster that KubeRay runs."""

    api_version: Literal["ray.io/v1"] = "ray.io/v1"
    kind: Literal["RayCluster"] = "RayCluster"
    metadata: Metadata
    spec: RayClusterSpec


class RayPod(KubernetesModel):
    """A pod of a Ray cluster, before its run is known."""

    ray_start_params: dict[str, str]
    spec: PodSpec


@dataclass(frozen=True)
class Run:
    """The run that a Ray cluster belongs to.

    `owner` is its Argo workflow, `service_account` that of its steps; empty is the namespace's
    default.
    """

    id: str
    owner: OwnerReference
    service_account: str = ""

    def metadata(self) -> Metadata:
        """Return the metadata of an object of this run."""
        return Metadata(
            name=cluster_name(self.id),
            labels={RUN_LABEL: self.id, "app.kubernetes.io/managed-by": "regraft"},
            owner_references=(self.owner,),
        )


def cluster_name(run_id: str) -> str:
    """Return the name of the Ray cluster of a run: 44 characters, KubeRay allows 53.

    KubeRay names the secret with the token after the cluster, too, if it has at most 50.
    """
    return f"regraft-{run_id}"


def cluster_address(run_id: str, namespace: str) -> str:
    """Return the address of the head's service for clients."""
    return f"ray://{cluster_name(run_id)}-head-svc.{namespace}.svc:{CLIENT_PORT}"


def make_ray_cluster(
    run: Run, head: RayPod, worker: RayPod, nodes: int, ray_version: str
) -> RayCluster:
    """Return the Ray cluster of a run.

    Args:
        run: its ID and owner.
        head: pod of the head node.
        worker: pod of each worker node.
        nodes: number of worker nodes.
        ray_version: version of Ray in the container image.
    """
    return RayCluster(
        metadata=run.metadata(),
        spec=RayClusterSpec(
            ray_version=ray_version,
            head_group_spec=HeadGroup(
                ray_start_params=head.ray_start_params, template=_template(run, head)
            ),
            worker_group_specs=(
                WorkerGroup(
                    group_name=WORKER_GROUP,
                    replicas=nodes,
                    min_replicas=nodes,
                    max_replicas=nodes,
                    ray_start_params=worker.ray_start_params,
                    template=_template(run, worker),
                ),
            ),
        ),
    )


def _template(run: Run, pod: RayPod) -> PodTemplate:
    account = {"service_account_name": run.service_account or None}
    labels = {RUN_LABEL: run.id} | _NO_SIDECAR
    return PodTemplate(
        metadata=PodMetadata(labels=labels, annotations=_NO_SIDECAR),
        spec=pod.spec.model_copy(update=account),
    )
