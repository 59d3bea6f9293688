"""The tasks of a run, as a server reports them: the states of its steps, and pods that wait.

The rows of KFP 2.17.0 are the nodes of Argo's workflow. A step `ingest` has the rows `ingest`,
`ingest-driver` and `executor`. If the server retries all templates, its default since 2.17.0, there
are also `ingest(0)`, `ingest-driver(0)` and `executor(0)`. No row refers to another one:
`child_tasks` has Argo's node ids, and no row has its own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

STEPS = ("resolve", "start-ray", "ingest", "extract-features", "merge-features", "train-head",
         "fine-tune", "evaluate", "record-verdict", "export", "verify", "publish",
         "conclude")  # fmt: skip
RELEASE_STEPS = ("export", "verify", "publish")  # they run only if the gate accepts the model
DRIVER_FAILED = "KFP's driver failed before the step started"
# What the server does not say of a driver: it reads the pipeline root's settings and the cache.
DRIVER_CAUSES = ("; usual causes: no access to the pipeline root, an invalid ConfigMap "
                 "kfp-launcher, or KFP's server did not respond")  # fmt: skip
FAILED = ("FAILED", "ERROR", "SYSTEM_ERROR")
ENDED = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED", "ERROR")


@dataclass(frozen=True)
class Task:
    """The state of one step, as the server reports it. Workers of one step are numbered from 1."""

    name: str
    state: str
    seconds: float | None = None
    error: str = ""


def has_ended(run: Any) -> bool:
    """Return whether a run has ended."""
    return (run.state or "").upper() in ENDED


def tasks_of(run: Any) -> list[Task]:
    """Return the steps of a run that started, in the order of the pipeline.

    KFP's own tasks are excluded. A step whose driver failed never starts, so the driver's failure
    is that of the step.
    """
    # An omitted step has no state; older servers report it as PENDING until after the run.
    omitted = (None, "", "RUNTIME_STATE_UNSPECIFIED", "SKIPPED",
               *(["PENDING"] if has_ended(run) else []))  # fmt: skip
    details = [task for task in _details(run) if task.state not in omitted]
    tasks = []
    for step in STEPS:
        found = [task for task in details if _name(task) == step]
        drivers = [task for task in details if _name(task) == f"{step}-driver"]
        started = bool(found)
        found = found or [task for task in drivers if task.state in FAILED]
        found.sort(key=lambda task: (str(task.create_time), task.task_id or ""))
        for number, task in enumerate(found, 1):
            name = f"{step} {number}/{len(found)}" if len(found) > 1 else step
            error = error_of(task) or ("" if started else DRIVER_FAILED + DRIVER_CAUSES)
            tasks.append(Task(name, task.state, _seconds(task), error))
    return tasks


def failures_of(run: Any) -> list[str]:
    """Return the steps that failed, with their errors; without any, KFP's drivers that failed."""
    steps = [task for task in tasks_of(run) if task.state in FAILED]
    if steps:
        return [f"{task.name}: {task.error}" if task.error else task.name for task in steps]
    failed = {_name(task): error_of(task) for task in _details(run) if task.state in FAILED}
    return [f"{name}: {error or DRIVER_FAILED + DRIVER_CAUSES}"
            for name, error in sorted(failed.items()) if name.endswith("-driver")]  # fmt: skip


def failed_release(run: Any) -> str:
    """Return the step that failed although the gate had accepted the model, or an empty text."""
    failed = {task.name for task in tasks_of(run) if task.state in FAILED}
    return next((step for step in RELEASE_STEPS if step in failed), "")


def was_rejected(run: Any) -> bool:
    """Return whether the server reports that the gate rejected the model.

    `record-verdict` decides the condition of the steps that release a model. Only a condition that
    was evaluated is SKIPPED: one that was not reached is omitted, without a state (KFP 2.17.0).
    """
    states = {_name(task): task.state for task in _details(run)}
    skipped = any(state == "SKIPPED" and re.fullmatch(r"condition-\d+", name)
                  for name, state in states.items())  # fmt: skip
    return skipped and states.get("record-verdict") == "SUCCEEDED"


def pending_pods(run: Any) -> dict[str, str]:
    """Return the step of each pod that is pending, by the id of its task.

    KFP waits without a limit for a pod whose secret, claim, container image or node is missing. An
    executor is that of the running step, because steps run one after another. The pod of a driver
    that belongs to no step has the driver's name.
    """
    details = _details(run)
    running = {_name(task) for task in details if task.state == "RUNNING"}
    of_executors = " and ".join(step for step in STEPS if step in running) or "executor"
    found = {}
    for task in details:
        name = re.sub(r"\(\d+\)$", "", _name(task))
        if task.state == "PENDING" and name == "executor":
            found[task.task_id] = of_executors
        elif task.state == "PENDING" and name.endswith("-driver"):
            step = name.removesuffix("-driver")
            found[task.task_id] = step if step in STEPS else name
    return found


def error_of(reported: Any) -> str:
    """Return the error of a run or a task in one line, or an empty text."""
    message = getattr(reported.error, "message", "") if reported.error else ""
    return " ".join(str(message or "").split())[:300]


def _details(run: Any) -> list[Any]:
    return (run.run_details.task_details if run.run_details else None) or []


def _name(task: Any) -> str:
    return (task.display_name or "").replace("_", "-")


def _seconds(task: Any) -> float | None:
    if task.start_time is None or task.end_time is None:
        return None
    seconds = float((task.end_time - task.start_time).total_seconds())
    return seconds if seconds >= 0 else None  # an unset end is in 1970
