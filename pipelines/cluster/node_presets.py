"""Presets of the nodes that steps request: accelerator, resources, node selection, scratch space.

Only steps that run the backbone request the heavy node, so a GPU never idles during a download or
the training of a small head.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from regraft_core.runtime.errors import unknown_name

HEAVY_STEPS = frozenset({"extract_features", "fine_tune", "evaluate"})
SHARED_MEMORY_PATH = "/dev/shm"  # noqa: S108 - the standard path on Linux
SCRATCH_PATH = "/tmp"  # noqa: S108 - the only writable folder next to a read-only root
GPU = "nvidia.com/gpu"
# What the GPU operator names a time-shared card, and a slice with an eighth of the memory of an
# A100 or H100 of 80 GB, if MIG has the strategy `mixed` (with `single`, a slice is a GPU).
SHARED_GPU, GPU_SLICE = "nvidia.com/gpu.shared", "nvidia.com/mig-1g.10gb"


@dataclass(frozen=True)
class Toleration:
    """A node taint that the pod of a step tolerates."""

    key: str
    operator: str = "Exists"
    value: str = ""
    effect: str = "NoSchedule"


@dataclass(frozen=True)
class Requirement:
    """A condition on a node label: `In`, `NotIn`, `Exists`, `DoesNotExist`, `Gt` or `Lt`."""

    key: str
    operator: str
    values: tuple[str, ...] = ()


@dataclass(frozen=True)
class Node:
    """The node that one step requests, in the notation of Kubernetes.

    All `requirements` must be met (one term of the node affinity; several terms would be
    alternatives). `scratch` and `shared_memory` are the size limits of the folders `/tmp` and
    `/dev/shm`. kfp cannot set `ephemeral-storage`, but files in `scratch` count as such.
    """

    cpu_request: str
    cpu_limit: str
    memory_request: str
    memory_limit: str
    accelerator: str = ""
    accelerators: int = 0
    selectors: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()
    requirements: tuple[Requirement, ...] = ()
    shared_memory: str = ""
    scratch: str = "10Gi"


@dataclass(frozen=True)
class Hardware:
    """The nodes of all steps: one for light steps, one for heavy steps, others for single steps."""

    name: str
    description: str
    light: Node
    heavy: Node
    steps: Mapping[str, Node] = field(default_factory=dict)

    @property
    def has_gpu(self) -> bool:
        """Whether the steps that run the backbone get a GPU."""
        return self.heavy.accelerators > 0

    def node(self, step: str) -> Node:
        """Return the node of a step, by the name of the step's folder."""
        return self.steps.get(step, self.heavy if step in HEAVY_STEPS else self.light)


_LIGHT = Node(cpu_request="1", cpu_limit="4", memory_request="2Gi", memory_limit="8Gi")
# Unpacked archives and the shards need space at the same time.
_INGEST = dataclasses.replace(_LIGHT, cpu_request="2", scratch="100Gi")
_CPU = dataclasses.replace(_LIGHT, cpu_request="4", cpu_limit="8", memory_request="8Gi",
                           memory_limit="16Gi", shared_memory="1Gi", scratch="50Gi")  # fmt: skip
# Fits the smallest common GPU node, with 4 cores and 16 GiB, of which Kubernetes reserves a part.
_GPU = Node(
    cpu_request="3", cpu_limit="4", memory_request="10Gi", memory_limit="12Gi", accelerator=GPU,
    accelerators=1, tolerations=(Toleration(GPU),), shared_memory="2Gi", scratch="50Gi",
)  # fmt: skip
_EKS_GPU_TYPES = tuple(
    f"{family}.{size}"
    for family in ("g4dn", "g5", "g6")
    for size in ("xlarge", "2xlarge", "4xlarge", "8xlarge")
)


def _with_gpu(name: str, description: str, off: tuple[Requirement, ...], **heavy: Any) -> Hardware:
    """Return a preset whose light steps avoid GPU nodes by the requirements `off`."""
    light, ingest = (dataclasses.replace(node, requirements=off) for node in (_LIGHT, _INGEST))
    return Hardware(
        name, description, light, dataclasses.replace(_GPU, **heavy), {"ingest": ingest}
    )


PRESETS: dict[str, Hardware] = {
    hardware.name: hardware
    for hardware in (
        Hardware("cpu", "No accelerator: more cores for the heavy steps.", _LIGHT, _CPU,
                 {"ingest": _INGEST}),
        _with_gpu(
            "nvidia", "Kubernetes with the NVIDIA GPU operator, which labels the nodes.",
            (Requirement("nvidia.com/gpu.present", "DoesNotExist"),),
            selectors={"nvidia.com/gpu.present": "true"},
        ),
        _with_gpu(
            "nvidia-mig", "As nvidia; a MIG slice of 10 GB for each heavy step.",
            (Requirement("nvidia.com/gpu.present", "DoesNotExist"),),
            selectors={"nvidia.com/gpu.present": "true"}, accelerator=GPU_SLICE,
        ),
        _with_gpu(
            "nvidia-shared", "As nvidia; heavy steps share a card by time, so set --gpu-memory-mb.",
            (Requirement("nvidia.com/gpu.present", "DoesNotExist"),),
            selectors={"nvidia.com/gpu.present": "true"}, accelerator=SHARED_GPU,
        ),
        _with_gpu(
            "gke", "Google Kubernetes Engine with node pools of one or more NVIDIA L4.",
            (Requirement("cloud.google.com/gke-accelerator", "DoesNotExist"),),
            selectors={"cloud.google.com/gke-accelerator": "nvidia-l4"},
        ),
        _with_gpu(
            "gke-shared", "As gke; heavy steps share a card by time, so set --gpu-memory-mb.",
            (Requirement("cloud.google.com/gke-accelerator", "DoesNotExist"),),
            selectors={
                "cloud.google.com/gke-accelerator": "nvidia-l4",
                "cloud.google.com/gke-gpu-sharing-strategy": "time-sharing",
            },
        ),
        _with_gpu(
            "eks", "Amazon EKS with node groups or Karpenter pools of g4dn, g5 and g6.",
            (Requirement("node.kubernetes.io/instance-type", "NotIn", _EKS_GPU_TYPES),),
            requirements=(Requirement("node.kubernetes.io/instance-type", "In", _EKS_GPU_TYPES),),
        ),
    )
}  # fmt: skip


def find_preset(name: str) -> Hardware:
    """Return a preset by name.

    Raises:
        InputError: it does not exist; similar names are suggested.
    """
    if name not in PRESETS:
        raise unknown_name("hardware", name, PRESETS)
    return PRESETS[name]


def set_node(task: Any, node: Node) -> None:
    """Make a kfp task request a node."""
    from kfp import kubernetes

    task.set_cpu_request(node.cpu_request).set_cpu_limit(node.cpu_limit)
    task.set_memory_request(node.memory_request).set_memory_limit(node.memory_limit)
    if node.accelerators:
        # kfp silently drops the limit unless the type is set first.
        task.set_accelerator_type(node.accelerator).set_accelerator_limit(node.accelerators)
    for key, value in node.selectors.items():
        kubernetes.add_node_selector(task, key, value)
    for toleration in node.tolerations:
        kubernetes.add_toleration(
            task, toleration.key, toleration.operator, toleration.value or None, toleration.effect
        )
    if node.requirements:
        expressions = [{"key": r.key, "operator": r.operator, "values": list(r.values)}
                       for r in node.requirements]  # fmt: skip
        kubernetes.add_node_affinity(task, match_expressions=expressions)
    if node.shared_memory:
        kubernetes.empty_dir_mount(
            task, "shared-memory", SHARED_MEMORY_PATH, "Memory", node.shared_memory
        )
    if node.scratch:
        kubernetes.empty_dir_mount(task, "scratch", SCRATCH_PATH, size_limit=node.scratch)
