"""The pods of a run's Ray cluster: the node presets, container image and secrets of the steps."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

from pipelines.cluster.node_presets import SCRATCH_PATH, SHARED_MEMORY_PATH, Hardware, Node
from pipelines.cluster.pod_settings import Pods
from pipelines.recipes.recipe import Recipe
from regraft_core.kuberay.health_probe import HEAD_URLS, WORKER_URLS
from regraft_core.kuberay.pod import (
    Affinity,
    Claim,
    Command,
    Container,
    EmptyDir,
    Expression,
    NodeAffinity,
    NodeSelector,
    NodeSelectorTerm,
    PodSpec,
    Probe,
    Resources,
    SecretKey,
    SecretVolume,
    Toleration,
    Variable,
    VariableSource,
    Volume,
    VolumeMount,
)
from regraft_core.kuberay.ray_cluster import RayPod
from regraft_core.runtime.addresses import refuse_credentials
from regraft_core.runtime.errors import InputError

MAX_NODES = 1024
RAY_STEPS = frozenset({"ingest", "extract_features", "train_head", "fine_tune"})
"""Steps that give work to Ray nodes."""
SHARED_MEMORY = "1Gi"
OBJECT_STORE_FRACTION = 0.9  # of the shared memory, which Ray must not exceed
_PROBE_MODULE = "regraft_core.kuberay.health_probe"
# Nothing is reported to Ray's authors, and no folder of the data is imported.
_VARIABLES = {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONSAFEPATH": "1"}
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


def check_ray(recipe: Recipe, hardware: Hardware | None, pods: Pods) -> None:
    """Check the Ray cluster of a run, if it has one.

    Args:
        recipe: options of the run.
        hardware: the nodes that the steps request.
        pods: the number of Ray nodes or an address, and the PVCs that the nodes mount.

    Raises:
        InputError: a value is invalid, or does not go with the other settings.
    """
    nodes, workers = pods.ray_nodes, recipe.workers
    if not 0 <= nodes <= MAX_NODES:
        raise InputError(f"ray_nodes: expected 0 to {MAX_NODES}, got {nodes}")
    if not nodes and not pods.ray:
        return
    if nodes and pods.ray:
        raise InputError(f"expected one of --ray-nodes and --ray, got {nodes} and {pods.ray!r}")
    option = "ray_nodes" if nodes else "ray"
    if pods.ray and not pods.ray.startswith("ray://"):
        raise InputError(f"ray: expected an address such as ray://host:10001, got {pods.ray!r}")
    refuse_credentials("ray", pods.ray)
    if workers > 1:
        flag = option.replace("_", "-")
        raise InputError(f"expected one of --{flag} and --workers, got {nodes or pods.ray!r} and "
                         f"{workers} workers")  # fmt: skip
    if nodes and hardware is None:
        raise InputError("ray_nodes: expected --hardware, because Ray needs to know the cores and "
                         "the memory of a node, got none")  # fmt: skip
    claims = replace(pods, secret_volumes=())
    if not (recipe.work_dir and claims.has_mounted(recipe.work_dir)):
        raise InputError(f"{option}: expected --work-dir in a mounted --pvc, through which the "
                         f"nodes share files, got {recipe.work_dir!r}")  # fmt: skip


def make_ray_pods(hardware: Hardware, pods: Pods) -> tuple[RayPod, RayPod]:
    """Return the pods: a light node for the head, which gets no tasks, and a heavy worker node.

    Args:
        hardware: the node presets of the steps.
        pods: container image, secrets and volumes of the steps.
    """
    worker = hardware.heavy
    cores = max(1, math.floor(_quantity(worker.cpu_request)))
    # The dashboard is for probes in its pod, and for `kubectl port-forward`.
    parameters = {"num-cpus": "0", "dashboard-host": "127.0.0.1"}
    resources = {"num-cpus": str(cores)}
    if worker.accelerators:  # KubeRay does not count slices and shared cards
        resources["num-gpus"] = str(worker.accelerators)
    return (
        _pod("ray-head", hardware.light, pods, HEAD_URLS, parameters),
        _pod("ray-worker", worker, pods, WORKER_URLS, resources),
    )


def _pod(
    name: str, node: Node, pods: Pods, urls: tuple[str, ...], parameters: dict[str, str]
) -> RayPod:
    shared = node.shared_memory or SHARED_MEMORY
    object_store = math.floor(OBJECT_STORE_FRACTION * _quantity(shared))
    parameters = parameters | {"object-store-memory": str(object_store)}
    gpus = {node.accelerator: str(node.accelerators)} if node.accelerators else {}
    folders = [
        (Volume(name="shared-memory", empty_dir=EmptyDir(medium="Memory", size_limit=shared)),
         SHARED_MEMORY_PATH),
        (Volume(name="scratch", empty_dir=EmptyDir(size_limit=node.scratch)), SCRATCH_PATH),
        *((Volume(name=f"secret-{number}", secret=SecretVolume(secret_name=one.name)), one.path)
          for number, one in enumerate(pods.secret_volumes)),
        *((Volume(name=f"pvc-{number}", persistent_volume_claim=Claim(claim_name=one.name)),
           one.path) for number, one in enumerate(pods.pvcs)),
    ]  # fmt: skip
    container = Container(
        name=name,
        image=pods.image,
        resources=Resources(
            requests={"cpu": node.cpu_request, "memory": node.memory_request},
            limits={"cpu": node.cpu_limit, "memory": node.memory_limit, **gpus},
        ),
        env=(*(Variable(name=key, value=value) for key, value in _VARIABLES.items()),
             *_secrets(pods)),
        volume_mounts=tuple(
            VolumeMount(name=volume.name, mount_path=path, read_only=bool(volume.secret) or None)
            for volume, path in folders
        ),
        readiness_probe=_probe(urls, failures=3),
        liveness_probe=_probe(urls, failures=24),
    )  # fmt: skip
    return RayPod(
        ray_start_params=parameters,
        spec=PodSpec(
            containers=(container,),
            volumes=tuple(volume for volume, _ in folders),
            **_placement(node),
        ),
    )


def _secrets(pods: Pods) -> list[Variable]:
    return [
        Variable(
            name=one.variable,
            value_from=VariableSource(secret_key_ref=SecretKey(name=one.secret, key=one.key)),
        )
        for one in pods.secret_variables
    ]


def _probe(urls: tuple[str, ...], failures: int) -> Probe:
    """Return a check every 10 s, which a node with all cores busy may fail for a while."""
    command = Command(command=("python", "-P", "-m", _PROBE_MODULE, *urls))
    return Probe(
        exec=command, initial_delay_seconds=10, period_seconds=10, timeout_seconds=10,
        failure_threshold=failures,
    )  # fmt: skip


def _placement(node: Node) -> dict[str, Any]:
    """Return on which machines the pod runs."""
    expressions = tuple(
        Expression(key=one.key, operator=one.operator, values=one.values or None)
        for one in node.requirements
    )
    term = NodeSelectorTerm(match_expressions=expressions)
    selector = NodeSelector(node_selector_terms=(term,))
    return {
        "node_selector": dict(node.selectors) or None,
        "tolerations": tuple(
            Toleration(
                key=one.key, operator=one.operator, value=one.value or None, effect=one.effect
            )
            for one in node.tolerations
        ) or None,
        "affinity": _affinity(selector) if expressions else None,
    }  # fmt: skip


def _affinity(selector: NodeSelector) -> Affinity:
    required = {"requiredDuringSchedulingIgnoredDuringExecution": selector}
    return Affinity(node_affinity=NodeAffinity.model_validate(required))


def _quantity(text: str) -> float:
    """Return the number of a quantity of Kubernetes that a preset has, such as 2Gi or 500m."""
    if text.endswith("m"):
        return float(text[:-1]) / 1000
    found = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", text)
    if found is None or found[2] not in _UNITS:
        raise ValueError(f"expected a quantity such as 2Gi, got {text!r}")
    return float(found[1]) * _UNITS[found[2]]
