"""The fields of a Kubernetes pod that the pods of a Ray cluster use.

The names are those of the Kubernetes API (core/v1); an unknown field is an error.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


class KubernetesModel(BaseModel):
    """A part of a manifest: snake_case in Python, camelCase in the manifest."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True
    )

    def manifest(self) -> dict[str, Any]:
        """Return the value as JSON of the Kubernetes API, without fields that are not set."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class SecretKey(KubernetesModel):
    """A key of a secret in the same namespace."""

    name: str
    key: str


class VariableSource(KubernetesModel):
    """Where the value of an environment variable comes from."""

    secret_key_ref: SecretKey


class Variable(KubernetesModel):
    """An environment variable with a value or a source."""

    name: str
    value: str | None = None
    value_from: VariableSource | None = None


class Command(KubernetesModel):
    """A command that a probe runs in the container."""

    command: tuple[str, ...]


class Probe(KubernetesModel):
    """A check of a container; times are in seconds."""

    exec: Command
    initial_delay_seconds: int
    period_seconds: int
    timeout_seconds: int
    failure_threshold: int


class Resources(KubernetesModel):
    """Requests and limits by resource, as quantities of Kubernetes."""

    requests: dict[str, str]
    limits: dict[str, str]


class Capabilities(KubernetesModel):
    """Linux capabilities to remove."""

    drop: tuple[str, ...] = ("ALL",)


class SeccompProfile(KubernetesModel):
    """The system calls that the container may use."""

    type: str = "RuntimeDefault"


class SecurityContext(KubernetesModel):
    """What a container may do; KFP 2.17 sets the same for steps."""

    run_as_non_root: bool = True
    allow_privilege_escalation: bool = False
    capabilities: Capabilities = Capabilities()
    seccomp_profile: SeccompProfile = SeccompProfile()


class VolumeMount(KubernetesModel):
    """A volume as a folder of a container."""

    name: str
    mount_path: str
    read_only: bool | None = None


class EmptyDir(KubernetesModel):
    """A folder that lives as long as its pod; `medium` "Memory" is shared memory."""

    size_limit: str
    medium: str | None = None


class SecretVolume(KubernetesModel):
    """A secret as files."""

    secret_name: str


class Claim(KubernetesModel):
    """A PersistentVolumeClaim."""

    claim_name: str


class Volume(KubernetesModel):
    """A volume of exactly one kind."""

    name: str
    empty_dir: EmptyDir | None = None
    secret: SecretVolume | None = None
    persistent_volume_claim: Claim | None = None


class Container(KubernetesModel):
    """The container in which KubeRay runs `ray start`."""

    name: str
    image: str
    resources: Resources
    env: tuple[Variable, ...]
    volume_mounts: tuple[VolumeMount, ...]
    liveness_probe: Probe
    readiness_probe: Probe
    security_context: SecurityContext = SecurityContext()


class Toleration(KubernetesModel):
    """A node taint that the pod tolerates."""

    key: str
    operator: str
    value: str | None = None
    effect: str


class Expression(KubernetesModel):
    """A condition on a node label."""

    key: str
    operator: str
    values: tuple[str, ...] | None = None


class NodeSelectorTerm(KubernetesModel):
    """Conditions that a node must meet, all of them."""

    match_expressions: tuple[Expression, ...]


class NodeSelector(KubernetesModel):
    """Alternative terms."""

    node_selector_terms: tuple[NodeSelectorTerm, ...]


class NodeAffinity(KubernetesModel):
    """The nodes that a pod may run on."""

    required: NodeSelector = Field(alias="requiredDuringSchedulingIgnoredDuringExecution")


class Affinity(KubernetesModel):
    """The nodes that a pod may run on."""

    node_affinity: NodeAffinity


class PodSpec(KubernetesModel):
    """A pod with one container; Ray needs no access to the Kubernetes API."""

    containers: tuple[Container]
    volumes: tuple[Volume, ...]
    node_selector: dict[str, str] | None = None
    tolerations: tuple[Toleration, ...] | None = None
    affinity: Affinity | None = None
    service_account_name: str | None = None
    automount_service_account_token: bool = False
    enable_service_links: bool = False


class PodMetadata(KubernetesModel):
    """Labels and annotations of a pod."""

    labels: dict[str, str]
    annotations: dict[str, str]


class PodTemplate(KubernetesModel):
    """What KubeRay makes pods from."""

    metadata: PodMetadata
    spec: PodSpec
