"""What Argo reports of a run's pods: why one waits or has failed, and the end of its log.

KFP's current API has neither. Its older API still responds with Argo's workflow, whose nodes have
the reasons (`workflow_manifest` in backend/src/apiserver/server/api_converter.go, KFP 2.17.0), and
with logs, those of ended pods from the store to which Argo copies them
(backend/src/apiserver/server/run_log_server.go). Another server may have neither; then nothing is
reported in addition.

Argo compresses the nodes of a large workflow. The server of KFP 2.17.0 then no longer updates the
states of the tasks (`reportTasksFromExecution` in backend/src/apiserver/server/report_server.go)
and has no logs from the store, but its older API has the workflow, with the compressed nodes.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import gzip
import json
import re
import zlib
from dataclasses import dataclass
from typing import Any

from kfp_server_api import V2beta1PipelineTaskDetail

from pipelines.cluster.kfp_api import Client
from pipelines.cluster.run_tasks import STEPS
from regraft_core.runtime.errors import RegraftError
from regraft_core.runtime.printable import one_line

MAX_LINE = 300
_ERROR = re.compile(r"\[regraft:error:(\d+)\] (?:[a-z_]+: )?(.*)")
_CONCLUSION = "[regraft] # "  # a title in Markdown
# `drive` in backend/src/v2/cmd/driver/main.go (KFP 2.17.0); before it, its log has inputs as JSON.
_DRIVER_ERROR = re.compile(r"F\d{4} [^]]*\] KFP driver: (?:driver\.\w+\(.*?\) failed: )?(.*)")
_LAUNCHER = re.compile(r"[IWEF]\d{4} ")  # lines of KFP's launcher, which follow those of the step


@dataclass(frozen=True)
class Pod:
    """A pod of a step, or of its driver."""

    node: str
    step: str
    phase: str
    reason: str


@dataclass(frozen=True)
class Failure:
    """Why a step failed, and the exit code of its error if its log has one."""

    reason: str
    code: int = 1


def pods_of(client: Client, run_id: str) -> list[Pod]:
    """Return the pods of a run's steps, in the order of their end; none if they are not known."""
    with _another_server():
        nodes = _nodes(_status(client, run_id))
        found = [node for node in nodes if node.get("type") == "Pod"]
        found.sort(key=lambda node: node.get("finishedAt") or "~")
        return [Pod(node["id"], step, node.get("phase") or "", one_line(node.get("message") or ""))
                for node in found if (step := _step(node["name"]))]  # fmt: skip
    return []


def compressed_tasks(client: Client, run_id: str) -> list[V2beta1PipelineTaskDetail]:
    """Return the tasks of a run whose nodes Argo has compressed, as the server would report them.

    None if they are not compressed, because then the server reports them itself.
    """
    with _another_server():
        status = _status(client, run_id)
        return [_task(node) for node in _nodes(status)] if _is_compressed(status) else []
    return []


def was_canceled(client: Client, run_id: str) -> bool:
    """Return whether Argo's workflow shows that its run was canceled; False if it is not known.

    The server cancels by a deadline of 0 s (`TerminateWorkflow` in
    backend/src/apiserver/resource/resource_manager.go, KFP 2.17.0). If the pods end at once, no
    state of the run shows it.
    """
    with _another_server():
        return _workflow(client, run_id)["spec"]["activeDeadlineSeconds"] == 0
    return False


def service_account_of(client: Client, run_id: str) -> str:
    """Return the service account of a run's steps, or an empty text."""
    with _another_server():
        return str(_workflow(client, run_id)["spec"]["serviceAccountName"])
    return ""


def waiting_reason(client: Client, run_id: str, step: str) -> str:
    """Return why a pod of a step is pending, as Kubernetes says it, or an empty text."""
    reasons = [pod.reason for pod in pods_of(client, run_id)
               if pod.step == step and pod.phase == "Pending"]  # fmt: skip
    return next((reason[:MAX_LINE] for reason in reasons if reason), "")


def failures_in_logs(client: Client, run_id: str) -> dict[str, Failure]:
    """Return, for each step whose last pod failed, what `describe_end` returns of it."""
    last = {pod.step: pod for pod in pods_of(client, run_id)}
    failed = [pod for pod in last.values() if pod.phase in ("Failed", "Error")]
    found = {pod.step: _failure(client, run_id, pod) for pod in failed}
    return {step: failure for step, failure in found.items() if failure.reason}


def conclusion_of(client: Client, run_id: str) -> str:
    """Return what the step `conclude` has reported, such as the published version, or ""."""
    ended = [pod for pod in pods_of(client, run_id)
             if pod.step == "conclude" and pod.phase == "Succeeded"]  # fmt: skip
    for pod in reversed(ended):  # the last one is the step, not its driver
        with contextlib.suppress(RegraftError):
            lines = client.read_log(run_id, pod.node).splitlines()
            said = [line for line in lines if line.startswith(_CONCLUSION)]
            return one_line(said[-1].removeprefix(_CONCLUSION))[:MAX_LINE] if said else ""
    return ""


def describe_end(reason: str, log: str) -> Failure:
    """Return the error that a step or KFP's driver reported in its log.

    Without one, it is how the pod ended, and the last line of the step; lines of KFP's launcher
    follow those.
    """
    lines = [line for line in log.splitlines() if line.strip()]
    if of_driver := [found for line in lines if (found := _DRIVER_ERROR.match(line))]:
        return Failure(one_line(of_driver[-1][1])[:MAX_LINE])
    own = [line for line in lines if not _LAUNCHER.match(line)]
    errors = [found for line in own if (found := _ERROR.match(line))]
    if errors:
        return Failure(one_line(errors[-1][2])[:MAX_LINE], int(errors[-1][1]))
    last = one_line((own or lines or [""])[-1])[:MAX_LINE]
    parts = (part for part in (reason[:MAX_LINE], last) if part)
    return Failure("; the last line of its log: ".join(parts))


def _another_server() -> contextlib.AbstractContextManager[None]:
    """Ignore errors of a server without this part of the API, or with another one."""
    return contextlib.suppress(
        RegraftError, ValueError, AttributeError, KeyError, TypeError, EOFError, OSError, zlib.error
    )


def _workflow(client: Client, run_id: str) -> dict[str, Any]:
    workflow: dict[str, Any] = json.loads(client.get_workflow(run_id))
    return workflow


def _status(client: Client, run_id: str) -> dict[str, Any]:
    return _workflow(client, run_id).get("status") or {}


def _is_compressed(status: dict[str, Any]) -> bool:
    return not status.get("nodes") and bool(status.get("compressedNodes"))


def _nodes(status: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the nodes of a workflow, as `CompressEncodeString` in util/file (Argo) packs them."""
    if _is_compressed(status):
        status = {"nodes": json.loads(gzip.decompress(base64.b64decode(status["compressedNodes"])))}
    return [*(status.get("nodes") or {}).values()]


def _task(node: dict[str, Any]) -> V2beta1PipelineTaskDetail:
    """Return a node as a task, as `ToV2` in backend/src/apiserver/model/run.go names its state."""
    phase = node.get("phase") or ""
    states = {"Error": "FAILED", "Omitted": "RUNTIME_STATE_UNSPECIFIED"}
    start, end = (datetime.datetime.fromisoformat(node[name]) if node.get(name) else None
                  for name in ("startedAt", "finishedAt"))  # fmt: skip
    return V2beta1PipelineTaskDetail(
        task_id=node["id"], display_name=node["displayName"],
        state=states.get(phase, phase.upper()), create_time=start, start_time=start, end_time=end,
    )  # fmt: skip


def _failure(client: Client, run_id: str, pod: Pod) -> Failure:
    try:
        log = client.read_log(run_id, pod.node)
    except RegraftError:
        log = ""
    return describe_end(pod.reason, log)


def _step(name: str) -> str:
    """Return the step of a node, whose name has those of all graphs around it."""
    parts = [re.sub(r"\(\d+\)$", "", part) for part in reversed(name.split("."))]
    return next((one for part in parts if (one := part.removesuffix("-driver")) in STEPS), "")
