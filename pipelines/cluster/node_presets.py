"""What each step's node is: accelerator, requests and limits, where it may run, scratch space.

`place` puts a profile on a task. Only steps that run the backbone take the heavy node, so a GPU
never waits for a download or a head of a few thousand weights.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from regraft_core.runtime.errors import unknown_name

HEAVY_STEPS = frozenset({"extract_features", "fine_tune", "evaluate"})
SHARED_MEMORY_PATH = "/dev/shm"  # noqa: S108 - where Linux programs look for it
SCRATCH_PATH = "/tmp"  # noqa: S108 - the one writable folder beside a read-only root
GPU = "nvidia.com/gpu"


@dataclass(frozen=True)
class Toleration:
    """A taint that the step's pod puts up with."""

    key: str
    operator: str = "Exists"
    value: str = ""
    effect: str = "NoSchedule"


@dataclass(frozen=True)
class Requirement:
    """What a label of the node must be: `In`, `NotIn`, `Exists`, `DoesNotExist`, `Gt`, `Lt`."""

    key: str
    operator: str
    values: tuple[str, ...] = ()


@dataclass(frozen=True)
class Node:
    """What one step asks of its node, in Kubernetes' notation.

    `requirements` must all hold (one term of the node affinity; several terms would be
    alternatives). `scratch` and `shared_memory` are the size limits of the folders `/tmp` and
    `/dev/shm`; kfp cannot say `ephemeral-storage`, but what is written to `scratch` counts as it.
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
    """A node for each step: one for the light, one for the heavy, or one of a step's own."""

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
        """Return the node of a step, by the name of its folder."""
        return self.steps.get(step, self.heavy if step in HEAVY_STEPS else self.light)


_LIGHT = Node(cpu_request="1", cpu_limit="4", memory_request="2Gi", memory_limit="8Gi")
# Archives are unpacked beside the shards that are made of them.
_INGEST = dataclasses.replace(_LIGHT, cpu_request="2", scratch="100Gi")
_CPU = dataclasses.replace(_LIGHT, cpu_request="4", cpu_limit="8", memory_request="8Gi",
                           memory_limit="16Gi", shared_memory="1Gi", scratch="50Gi")  # fmt: skip
# Fits the smallest usual GPU node, of 4 cores and 16 GiB, beside what Kubernetes keeps of it.
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
    """Return a preset whose light steps keep off the GPU nodes by `off`."""
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
            "nvidia", "Plain Kubernetes with NVIDIA's GPU operator, which labels the nodes.",
            (Requirement("nvidia.com/gpu.present", "DoesNotExist"),),
            selectors={"nvidia.com/gpu.present": "true"},
        ),
        _with_gpu(
            "gke", "Google Kubernetes Engine, node pools of one NVIDIA L4 or more.",
            (Requirement("cloud.google.com/gke-accelerator", "DoesNotExist"),),
            selectors={"cloud.google.com/gke-accelerator": "nvidia-l4"},
        ),
        _with_gpu(
            "eks", "Amazon EKS, node groups or Karpenter pools of g4dn, g5 and g6.",
            (Requirement("node.kubernetes.io/instance-type", "NotIn", _EKS_GPU_TYPES),),
            requirements=(Requirement("node.kubernetes.io/instance-type", "In", _EKS_GPU_TYPES),),
        ),
    )
}  # fmt: skip


def find_preset(name: str) -> Hardware:
    """Return a preset by name.

    Raises:
        InputError: there is none of that name; near names are suggested.
    """
    if name not in PRESETS:
        raise unknown_name("hardware", name, PRESETS)
    return PRESETS[name]


def place(task: Any, node: Node) -> None:
    """Put a node's profile on a kfp task."""
    from kfp import kubernetes

    task.set_cpu_request(node.cpu_request).set_cpu_limit(node.cpu_limit)
    task.set_memory_request(node.memory_request).set_memory_limit(node.memory_limit)
    if node.accelerators:
        # The limit is dropped in silence unless the type is set first.
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
