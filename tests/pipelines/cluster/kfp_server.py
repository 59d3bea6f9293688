"""A local server with the part of the KFP v2beta1 API that a submission uses.

Requests and responses pass through the models of `kfp_server_api`, which are generated from the
public description of the API. Tests can plan faults.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import email
import email.policy
import http.server
import json
import os
import re
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kfp_server_api as api
import yaml

from tests.local_server import LocalServer, read_body, write_response

TASKS = ("resolve", "ingest", "extract-features", "train-head", "fine-tune", "evaluate",
         "record-verdict")  # fmt: skip
RELEASE = ("export", "verify", "publish")
START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


@dataclass(frozen=True)
class Fault:
    """A planned fault of one request: a status, or a broken connection (`done`: after it)."""

    status: int = 0
    body: bytes = b'{"error": "failed", "code": 13, "message": "failed on purpose"}'
    done: bool = False
    headers: tuple[tuple[str, str], ...] = ()


class KfpServer(LocalServer):
    """`faults` are used up in turn by requests that match a pattern.

    Runs follow `script`. With `runs_folder`, they are really run there, by `backend.py`.
    """

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        super().__init__(context)
        self.tokens: set[str] | None = None
        self.multi_user = False
        self.version = "2.17.0"
        self.faults: list[tuple[str, Fault]] = []
        self.requests: list[tuple[str, str, str]] = []
        self.experiments: dict[str, api.V2beta1Experiment] = {}
        self.pipelines: dict[str, api.V2beta1Pipeline] = {}
        self.versions: dict[str, api.V2beta1PipelineVersion] = {}
        self.runs: dict[str, api.V2beta1Run] = {}
        self.recurring: dict[str, api.V2beta1RecurringRun] = {}
        self.script: list[Any] = ran(accepted=True)
        self.requests_of_run: dict[str, int] = {}
        self.nodes: list[dict[str, Any]] | None = None  # None: without the older API
        self.pods_account = "pipeline-runner"
        self.canceled = False  # without a state CANCELING, as a run whose pods end at once
        # Set if Argo has compressed the nodes, because the workflow is large.
        self.compress: Callable[[bytes], bytes] | None = None
        self.logs: dict[str, str] = {}
        self.on_get_run: Callable[[], Any] = lambda: None
        self.runs_folder: Path | None = None
        self._processes: list[subprocess.Popen[bytes]] = []
        self._api = api.ApiClient()
        self._lock = threading.Lock()

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        for process in self._processes:
            process.kill()
            process.wait()

    def fail(self, pattern: str, *faults: Fault) -> None:
        """Plan faults for the next requests whose "METHOD /path" matches."""
        self.faults += [(pattern, fault) for fault in faults]

    def count(self, pattern: str) -> int:
        """Return the number of matching requests."""
        return sum(bool(re.search(pattern, f"{m} {p}")) for m, p, _ in self.requests)

    def add_experiment(self, name: str) -> str:
        """Add an experiment and return its ID."""
        created = api.V2beta1Experiment(display_name=name)
        return str(self._add(self.experiments, created, "experiment_id").experiment_id)

    def respond(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        body = read_body(handler)
        parts = urlsplit(handler.path)
        name = f"{handler.command} {parts.path}"
        with self._lock:
            self.requests.append((handler.command, parts.path, str(handler.headers)))
            fault = self._next_fault(name)
            if fault and not fault.done:
                status, answer, headers = fault.status, fault.body, dict(fault.headers)
            else:
                status, value = self._handle(handler, name, parse_qs(parts.query), body)
                answer, headers = self._encode(value)
        if fault and not fault.status:  # the connection breaks
            handler.close_connection = True
            return
        with contextlib.suppress(OSError):
            write_response(handler, status, headers, answer)

    def _encode(self, value: Any) -> tuple[bytes, dict[str, str]]:
        if isinstance(value, str):  # a log
            return value.encode(), {"Content-Type": "text/plain; charset=utf-8"}
        text = json.dumps(self._api.sanitize_for_serialization(value))
        return text.encode(), {"Content-Type": "application/json"}

    def _next_fault(self, name: str) -> Fault | None:
        for place, (pattern, fault) in enumerate(self.faults):
            if re.search(pattern, name):
                del self.faults[place]
                return fault
        return None

    def _handle(
        self,
        handler: http.server.BaseHTTPRequestHandler,
        name: str,
        query: dict[str, list[str]],
        body: bytes,
    ) -> tuple[int, Any]:
        token = (handler.headers.get("Authorization") or "").removeprefix("Bearer ")
        if self.tokens is not None and token not in self.tokens:
            return 401, {"code": 16, "message": f"Unauthenticated: token {token} has expired"}
        path = name.replace("/apis/v2beta1", "")
        name_filter = _filter_name(query)

        def named(values: dict[str, Any], only: Callable[[Any], bool] = lambda _: True) -> Any:
            return [v for v in values.values() if only(v) and name_filter in ("", v.display_name)]

        owner = query.get("experiment_id", [""])[0]
        match path:
            case "GET /healthz":
                health = {"commit_sha": "unknown", "tag_name": self.version}
                return 200, {**health, "multi_user": self.multi_user, "pipeline_store": "database"}
            case "GET /experiments":
                return 200, api.V2beta1ListExperimentsResponse(named(self.experiments))
            case "POST /experiments":
                created = self._read(body, "V2beta1Experiment")
                return 200, self._add(self.experiments, created, "experiment_id")
            case "GET /pipelines":
                return 200, api.V2beta1ListPipelinesResponse(named(self.pipelines))
            case "POST /pipelines/upload":
                spec = _uploaded(handler, body)
                created = api.V2beta1Pipeline(display_name=query["name"][0])
                self._add(self.pipelines, created, "pipeline_id")
                self._add_version(created.pipeline_id, query["name"][0], spec)
                return 200, created
            case "POST /pipelines/upload_version":
                spec = _uploaded(handler, body)
                return 200, self._add_version(query["pipelineid"][0], query["name"][0], spec)
            case "GET /runs":
                found = named(self.runs, lambda run: run.experiment_id == owner)
                return 200, api.V2beta1ListRunsResponse(found)
            case "POST /runs":
                created = self._read(body, "V2beta1Run")
                self._check(created)
                created.service_account = created.service_account or "pipeline-runner"
                self._add(self.runs, created, "run_id")
                if self.runs_folder:
                    self._start(created, self.runs_folder / created.run_id)
                return 200, created
            case "GET /recurringruns":
                found = named(self.recurring, lambda run: run.experiment_id == owner)
                return 200, api.V2beta1ListRecurringRunsResponse(found)
            case "POST /recurringruns":
                created = self._read(body, "V2beta1RecurringRun")
                self._check(created)
                return 200, self._add(self.recurring, created, "recurring_run_id")
        if found := re.fullmatch(r"GET /apis/v1beta1/runs/([^/]+)", path):
            return self._workflow(found[1])
        if found := re.fullmatch(r"GET /apis/v1alpha1/runs/[^/]+/nodes/([^/]+)/log", path):
            missing = '{"error_message":"BadRequestError: Failed to read logs for run"}'
            return 200, self.logs.get(found[1], missing)  # the server sends this after a status 200
        if found := re.fullmatch(r"GET /pipelines/([^/]+)/versions", path):
            versions = named(self.versions, lambda version: version.pipeline_id == found[1])
            return 200, api.V2beta1ListPipelineVersionsResponse(versions)
        for pattern, values in ((r"GET /pipelines/[^/]+/versions/([^/]+)", self.versions),
                                (r"GET /experiments/([^/]+)", self.experiments)):  # fmt: skip
            if (found := re.fullmatch(pattern, path)) and found[1] in values:
                return 200, values[found[1]]
        if found := re.fullmatch(r"GET /runs/([^/]+)", path):
            if found[1] in self.runs:
                return 200, self._next_state(self.runs[found[1]])
            return 404, {"code": 5, "message": f"Failed to get a run: Run {found[1]} not found"}
        return 404, {"code": 5, "message": f"{path} not found"}

    def _workflow(self, run_id: str) -> tuple[int, Any]:
        if self.nodes is None or run_id not in self.runs:
            return 404, {"code": 5, "message": "Not Found"}
        nodes: Any = {node["id"]: node for node in self.nodes}
        status = {"nodes": nodes}
        if self.compress:
            packed = self.compress(json.dumps(nodes).encode())
            status = {"compressedNodes": base64.b64encode(packed).decode()}
        spec: dict[str, Any] = {"serviceAccountName": self.pods_account}
        spec |= {"activeDeadlineSeconds": 0} if self.canceled else {}
        manifest = json.dumps({"spec": spec, "status": status})
        return 200, {"run": {"id": run_id}, "pipeline_runtime": {"workflow_manifest": manifest}}

    def _start(self, run: api.V2beta1Run, folder: Path) -> None:
        """Run a pipeline in a process of its own."""
        spec = self.versions[run.pipeline_version_reference.pipeline_version_id].pipeline_spec
        spec = spec.get("pipeline_spec", spec)
        folder.mkdir(parents=True)
        contents = {"spec": spec, "run_id": run.run_id,
                    "parameters": run.runtime_config.parameters}  # fmt: skip
        (folder / "run.json").write_text(json.dumps(contents))
        root = Path(__file__).parents[3]
        path = os.pathsep.join([str(root), str(root / "serving" / "client")])
        with open(folder / "log", "wb") as log:
            self._processes.append(subprocess.Popen(
                [sys.executable, "-m", "tests.pipelines.cluster.backend", str(folder)],
                stdout=log, stderr=subprocess.STDOUT, cwd=root,
                env={**os.environ, "PYTHONPATH": path},
            ))  # fmt: skip

    def _next_state(self, run: api.V2beta1Run) -> api.V2beta1Run:
        """Return the run with its state, or the next one of the script, whose last one stays."""
        self.on_get_run()
        if self.runs_folder:
            file = self.runs_folder / run.run_id / "state.json"
            found = json.loads(file.read_text()) if file.is_file() else {"state": "PENDING"}
            tasks = [task(**row) for row in found.get("tasks", ())]
            run.state, run.run_details = found["state"], api.V2beta1RunDetails(task_details=tasks)
            return run
        number = self.requests_of_run.get(run.run_id, 0)
        if number == 0 and run.state in ("SUCCEEDED", "FAILED", "CANCELED"):
            return run  # a test has set its end
        state, tasks = self.script[min(number, len(self.script) - 1)]
        self.requests_of_run[run.run_id] = number + 1
        if state != run.state:
            run.state_history = [*(run.state_history or ()), api.V2beta1RuntimeStatus(state=state)]
        run.state = state
        run.run_details = api.V2beta1RunDetails(task_details=tasks)
        return run

    def _read(self, body: bytes, kind: str) -> Any:
        """Read the body of a request as a model, which has only keys of the API."""
        allowed = set(getattr(api, kind).attribute_map.values())
        assert set(json.loads(body)) <= allowed
        return self._api.deserialize(SimpleNamespace(data=body.decode()), kind)

    def _check(self, created: Any) -> None:
        """Refuse unknown versions and parameters, as the real server does."""
        spec = created.pipeline_spec
        if reference := created.pipeline_version_reference:
            version = self.versions[reference.pipeline_version_id]
            assert version.pipeline_id == reference.pipeline_id
            spec = version.pipeline_spec
        known = spec.get("pipeline_spec", spec)["root"]["inputDefinitions"]["parameters"]
        assert set(created.runtime_config.parameters) <= set(known)

    def _add(self, values: dict[str, Any], created: Any, key: str) -> Any:
        identity = f"{key.removesuffix('_id')}-{len(values) + 1}"
        setattr(created, key, identity)
        values[identity] = created
        return created

    def _add_version(self, pipeline: str, name: str, spec: list[Any]) -> Any:
        created = api.V2beta1PipelineVersion(
            pipeline_id=pipeline,
            display_name=name,
            pipeline_spec=dict(zip(("pipeline_spec", "platform_spec"), spec, strict=False))
            if len(spec) > 1
            else spec[0],
        )
        return self._add(self.versions, created, "pipeline_version_id")


def task(name: str, state: str, seconds: int = 7, error: str = "", number: int = 0) -> Any:
    """Return the details of a task as the server reports them.

    An omitted task has no state, and starts and ends when Argo omits it.
    """
    seconds = seconds if state else 0
    ended = state in ("SUCCEEDED", "FAILED", "SKIPPED", "")
    return api.V2beta1PipelineTaskDetail(
        task_id=f"{name}-{number}",
        display_name=name,
        state=state or None,
        create_time=START + datetime.timedelta(seconds=number),
        start_time=START,
        end_time=START + datetime.timedelta(seconds=seconds) if ended else None,
        error=api.GoogleRpcStatus(code=13, message=error) if error else None,
    )


def ran(*, accepted: bool) -> list[Any]:
    """Return the responses for a run that ends SUCCEEDED, as KFP 2.17.0 gives them.

    Drivers, executors and conditions are among the steps; omitted steps have no state.
    """
    own = [task(name, "SUCCEEDED") for name in ("root-driver", "root", "steps-driver", "steps")]
    responses: list[Any] = [("PENDING", None)]
    for number, name in enumerate(TASKS):
        done = [one for before in TASKS[:number] for one in _step(before, "SUCCEEDED")]
        responses.append(("RUNNING", [*own, *done, *_step(name, "RUNNING")]))
    done = [one for name in TASKS for one in _step(name, "SUCCEEDED")]
    ends = [task("condition-1", "SUCCEEDED" if accepted else "SKIPPED")]
    for name in RELEASE:
        ends += _step(name, "SUCCEEDED") if accepted else [task(name, "")]
    last = _step("conclude", "SUCCEEDED")
    responses.append(("SUCCEEDED", [*own, *done, *ends, *last]))
    return responses


def frozen() -> list[Any]:
    """Return the responses for a published run whose details stopped changing.

    So KFP 2.17.0 reports a run whose workflow Argo compressed: the run ends, its tasks never do.
    """
    done = [one for name in TASKS for one in _step(name, "SUCCEEDED")]
    stuck = [task("condition-1", "RUNNING"), task("export-driver", "RUNNING")]
    return [("RUNNING", done), ("SUCCEEDED", [*done, *stuck])]


def _step(name: str, state: str) -> list[Any]:
    """Return a step with the tasks that KFP adds to it."""
    return [task(f"{name}-driver", "SUCCEEDED"), task(name, state), task("executor", state)]


def failed(name: str, error: str = "") -> list[Any]:
    """Return the states of a run in which a step, or its driver, fails; later steps are omitted."""
    steps, step = (*TASKS, *RELEASE), name.removesuffix("-driver")
    place = steps.index(step)
    tasks = [one for before in steps[:place] for one in _step(before, "SUCCEEDED")]
    omitted = [task(f"{after}{end}", "") for after in steps[place + 1 :] for end in ("-driver", "")]
    omitted += [task(step, "")] if step != name else []
    end = [task(name, "FAILED", error=error), *omitted, *_step("conclude", "SUCCEEDED")]
    return [("RUNNING", tasks), ("FAILED", [*tasks, *end])]


def waiting(name: str, *, retries_of_all: bool = True) -> list[Any]:
    """Return the tasks of a run in which the pod of a step is pending.

    `retries_of_all`: the server retries all templates, as KFP 2.17.0 does by default.
    """
    before = [one for done in TASKS[: TASKS.index(name)] for one in _step(done, "SUCCEEDED")]
    own = [task(f"{name}-driver", "SUCCEEDED"), task(name, "RUNNING")]
    if not retries_of_all:
        return [*before, *own, task("executor", "PENDING", number=len(before))]
    own += [task(f"{name}-driver(0)", "SUCCEEDED"), task(f"{name}(0)", "RUNNING")]
    pod = task("executor(0)", "PENDING", number=len(before))
    return [*before, *own, task("executor", "RUNNING"), pod]


def pod(name: str, phase: str, message: str = "", ended: int = 0) -> dict[str, Any]:
    """Return the node of a pod in Argo's workflow."""
    end = (START + datetime.timedelta(seconds=ended)).isoformat() if ended else None
    return {"id": f"regraft-{name}", "name": f"regraft-x.root.steps.{name}",
            "displayName": name.rsplit(".", 1)[-1], "type": "Pod", "phase": phase,
            "message": message, "startedAt": "2026-01-01T00:00:00Z", "finishedAt": end}  # fmt: skip


def graph(name: str, phase: str) -> dict[str, Any]:
    """Return the node of a step or a condition, around its pods."""
    return {**pod(name, phase, ended=1), "type": "Skipped" if phase == "Skipped" else "DAG"}


def _filter_name(query: dict[str, list[str]]) -> str:
    """Return the name in the filter of a list, or an empty text."""
    if "filter" not in query:
        return ""
    (predicate,) = json.loads(query["filter"][0])["predicates"]
    # The server takes the operation by name or by number.
    assert predicate["operation"] in ("EQUALS", 1)
    assert predicate["key"] == "display_name"
    return str(predicate["stringValue"])


def _uploaded(handler: http.server.BaseHTTPRequestHandler, body: bytes) -> list[Any]:
    head = f"Content-Type: {handler.headers['Content-Type']}\r\n\r\n".encode()
    message = email.message_from_bytes(head + body, policy=email.policy.default)
    (part,) = message.iter_parts()
    assert part.get_param("name", header="content-disposition") == "uploadfile"
    return list(yaml.load_all(part.get_content(), yaml.CSafeLoader))


@contextlib.contextmanager
def kfp_server(certificate: Path | None = None) -> Iterator[KfpServer]:
    """Yield a running server, behind TLS if a key with certificate is given, and stop it."""
    context = None
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
    with KfpServer(context) as server:
        yield server
