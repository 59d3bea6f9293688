"""The NetworkPolicy of a Ray cluster: only pods of the same run reach it.

Ray runs what its clients send. The token is the first barrier, this is the second, if the network
of the Kubernetes cluster enforces policies.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from regraft_core.kuberay.pod import KubernetesModel
from regraft_core.kuberay.ray_cluster import CLUSTER_LABEL, RUN_LABEL, Metadata, Run, cluster_name


class PodSelector(KubernetesModel):
    """Pods of the same namespace with all of these labels."""

    match_labels: dict[str, str]


class Peer(KubernetesModel):
    """Pods that may connect."""

    pod_selector: PodSelector


class IngressRule(KubernetesModel):
    """Connections that are allowed, to every port."""

    peers: tuple[Peer, ...] = Field(alias="from")


class NetworkPolicySpec(KubernetesModel):
    """The pods that are protected, and who reaches them."""

    pod_selector: PodSelector
    policy_types: tuple[Literal["Ingress"]] = ("Ingress",)
    ingress: tuple[IngressRule, ...]


class NetworkPolicy(KubernetesModel):
    """A policy of the Kubernetes API `networking.k8s.io/v1`."""

    api_version: Literal["networking.k8s.io/v1"] = "networking.k8s.io/v1"
    kind: Literal["NetworkPolicy"] = "NetworkPolicy"
    metadata: Metadata
    spec: NetworkPolicySpec


def make_network_policy(run: Run) -> NetworkPolicy:
    """Return the policy of a run's Ray cluster, whose pods have the label of the run as well."""
    peer = Peer(pod_selector=PodSelector(match_labels={RUN_LABEL: run.id}))
    rule = IngressRule.model_validate({"from": (peer,)})
    protected = PodSelector(match_labels={CLUSTER_LABEL: cluster_name(run.id)})
    return NetworkPolicy(
        metadata=run.metadata(),
        spec=NetworkPolicySpec(pod_selector=protected, ingress=(rule,)),
    )
