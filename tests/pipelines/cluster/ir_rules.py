"""What a compiled pipeline must not hold, because Kubeflow's backend cannot run it.

Each rule returns a line for each violation. They were found by running pipelines on KFP 2.15.0 and
2.17.0, and most were read in the backend's source, which the rules name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

Documents = list[dict[str, Any]]

# Since which version of the server a placeholder is resolved (backend/src/v2/driver/resolve.go).
PLACEHOLDERS = {"{{$.pipeline_job_create_time_utc}}": (2, 16)}
# Argo compresses a workflow at 1 MiB; KFP 2.17.0 then stops reporting its states. The specification
# needs 0.12 MB, and options and URIs may be longer than those of a small run.
NODES_BYTES = 500_000
# Bytes of a node, and of what a server of KFP 2.17.0 adds to the patch of a pod, as in runs there.
NODE, PATCH, PARAMETER, INPUT_ARTIFACT, OUTPUT_ARTIFACT = 700, 1300, 40, 950, 300


def iterated_lists(documents: Documents) -> Iterator[str]:
    """A loop's body uses the list that the loop iterates over.

    The driver then fails with `parent DAG does not have input parameter`
    (backend/src/v2/driver/resolve.go).
    """
    for name, task in _tasks(documents):
        iterated = task.get("parameterIterator", {}).get("items", {}).get("inputParameter")
        if iterated is None:
            continue
        body = documents[0]["components"][task["componentRef"]["name"]]
        for inner, used in body["dag"]["tasks"].items():
            for parameter in used.get("inputs", {}).get("parameters", {}).values():
                if parameter.get("componentInputParameter") == iterated:
                    yield f"{name}: its body's {inner} uses the list {iterated}"


def artifact_lists_into_graphs(documents: Documents) -> Iterator[str]:
    """A list of artifacts goes into a loop, a condition or a nested pipeline.

    It arrives as one artifact, the last (`GetInputArtifactsByExecutionID` in
    backend/src/v2/metadata/client.go).
    """
    for name, component in documents[0]["components"].items():
        if "dag" in component:
            for artifact, spec in (
                component.get("inputDefinitions", {}).get("artifacts", {}).items()
            ):
                if spec.get("isArtifactList"):
                    yield f"{name}: gets the list of artifacts {artifact}"


def placeholders(documents: Documents, oldest: tuple[int, int]) -> Iterator[str]:
    """A placeholder that the oldest supported server does not resolve."""
    text = json.dumps(documents)
    for placeholder, since in PLACEHOLDERS.items():
        if placeholder in text and oldest < since:
            yield f"{placeholder}: resolved since {since}, {oldest} is supported"


def retries_cut_short(documents: Documents) -> Iterator[str]:
    """The total time of all attempts is less than they may take.

    `backoffMaxDuration` becomes Argo's `maxDuration`, counted from the first start
    (backend/src/v2/compiler/argocompiler/container.go).
    """
    limits = _deadlines(documents)
    for name, task in _tasks(documents):
        policy = task.get("retryPolicy")
        if not policy or not policy.get("maxRetryCount"):
            continue
        component = documents[0]["components"][task["componentRef"]["name"]]
        attempts = int(policy["maxRetryCount"]) + 1
        first = _seconds(policy["backoffDuration"])
        waits = sum(first * policy["backoffFactor"] ** n for n in range(attempts - 1))
        needed = attempts * limits.get(component.get("executorLabel", ""), 0) + waits
        if _seconds(policy["backoffMaxDuration"]) < needed:
            yield f"{name}: {policy['backoffMaxDuration']} for attempts of {needed:.0f} s in all"


def large_nodes(documents: Documents, workers: int = 1) -> Iterator[str]:
    """The nodes of a run exceed `NODES_BYTES`."""
    total = nodes_bytes(documents, workers)
    if total > NODES_BYTES:
        yield f"nodes of {workers} workers: {total} bytes of {NODES_BYTES}"


def nodes_bytes(documents: Documents, workers: int = 1) -> int:
    """Return an estimate of the bytes that a run's nodes take in Argo's workflow, without defaults.

    A driver's node has the component, the task and, for a container, its executor. It returns a
    patch for the pod, with the component and the executor again, which three more nodes repeat if
    the task has retries, otherwise two (backend/src/v2/compiler/argocompiler/container.go, dag.go).
    """
    spec = documents[0]

    def size(component: dict[str, Any], task: dict[str, Any]) -> int:
        driver = NODE + _escaped(component) + _escaped(task)
        if "dag" in component:
            times = workers if "parameterIterator" in task else 0
            inside = sum(size(spec["components"][one["componentRef"]["name"]], one)
                         for one in component["dag"]["tasks"].values())  # fmt: skip
            iterations = times * (driver + 2 * NODE)
            return driver + NODE + iterations + max(times, 1) * inside
        executor = spec["deploymentSpec"]["executors"][component["executorLabel"]]
        patch = PATCH + _escaped(executor) + _inputs(component, workers)
        patch += _escaped(json.dumps(component))
        copies = 3 if task.get("retryPolicy", {}).get("maxRetryCount") else 2
        return driver + _escaped(executor) + patch + copies * (NODE + patch)

    return size(spec["root"], {})


def _escaped(value: Any) -> int:
    """Return the bytes of a value as JSON in a parameter of a node."""
    return len(json.dumps(json.dumps(value, separators=(",", ":"))))


def _inputs(component: dict[str, Any], workers: int) -> int:
    """Return the bytes of the inputs and outputs of a step in its patch."""
    given = component.get("inputDefinitions", {})
    lists = [one.get("isArtifactList", False) for one in given.get("artifacts", {}).values()]
    written = len(component.get("outputDefinitions", {}).get("artifacts", {})) + 1  # its log
    parameters = len(given.get("parameters", {})) * PARAMETER
    artifacts = sum(workers if one else 1 for one in lists) * INPUT_ARTIFACT
    return parameters + artifacts + written * OUTPUT_ARTIFACT


RULES: tuple[Callable[[Documents], Iterator[str]], ...] = (
    iterated_lists,
    artifact_lists_into_graphs,
    retries_cut_short,
)


def _tasks(documents: Documents) -> Iterator[tuple[str, dict[str, Any]]]:
    spec = documents[0]
    for component in [spec["root"], *spec["components"].values()]:
        yield from component.get("dag", {}).get("tasks", {}).items()


def _deadlines(documents: Documents) -> dict[str, float]:
    """Return the seconds that an attempt may take, by executor."""
    if len(documents) < 2:
        return {}
    executors = documents[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    return {label: float(given.get("activeDeadlineSeconds", 0))
            for label, given in executors.items()}  # fmt: skip


def _seconds(duration: str) -> float:
    return float(duration.removesuffix("s"))
