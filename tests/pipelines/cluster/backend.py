"""A stand-in for Kubeflow's backend: runs a compiled pipeline, each step in one process.

Inputs are resolved as the drivers of KFP 2.17.0 do (backend/src/v2/driver/resolve.go), with their
limits: see `_loop` and `_inputs`. The steps run what the compiled file names or contains. Artifacts
are in a local folder instead of a bucket. There are no retries.

    python -m tests.pipelines.cluster.backend FOLDER

reads `FOLDER/run.json` and writes `FOLDER/state.json` whenever the state of a task changes. Runs in
the same parent folder share a cache.
"""

from __future__ import annotations

import json
import re
import sys
import types
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kfp.dsl.executor import Executor
from kfp.dsl.types import artifact_types

from pipelines.cluster import step_component, step_process
from pipelines.cluster.compact_ir import EXECUTOR_INPUT
from regraft_core.formats.manifest_storage import digest_of, write_text

ALWAYS = "ALL_UPSTREAM_TASKS_COMPLETED"
BUCKET = "minio://mlpipeline/"
Tasks = dict[str, dict[str, Any]]


class DriverError(Exception):
    """A driver cannot resolve the inputs of its task."""


@dataclass
class Values:
    """Inputs or outputs of a task; an artifact's `name` is its id in the metadata store."""

    parameters: dict[str, Any] = field(default_factory=dict)
    artifacts: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


class Backend:
    """Runs one pipeline. `rows` are the states of its tasks, as a server would report them."""

    def __init__(self, spec: dict[str, Any], run_id: str, folder: Path) -> None:
        self.spec, self.run_id, self.folder = spec, run_id, folder
        self.rows: list[dict[str, Any]] = []
        self.inputs: dict[str, Values] = {}

    def run(self, parameters: dict[str, Any]) -> str:
        """Run the pipeline and return its state: that of its last task, whatever failed before."""
        root = self.spec["root"]
        states, _ = self._dag(root, Values(_defaults(root) | _as_struct(parameters)))
        return (
            "SUCCEEDED" if states[_in_order(root["dag"]["tasks"])[-1]] == "SUCCEEDED" else "FAILED"
        )

    def _dag(self, component: dict[str, Any], given: Values) -> tuple[dict[str, str], Values]:
        """Run the tasks of a graph; return their states, and the outputs of the graph."""
        tasks, states, outputs = component["dag"]["tasks"], {}, {}
        for name in _in_order(tasks):
            task = tasks[name]
            ended = all(states[one] == "SUCCEEDED" for one in task.get("dependentTasks", ()))
            if ended or task.get("triggerPolicy", {}).get("strategy") == ALWAYS:
                states[name], outputs[name] = self._task(name, task, given, outputs)
            else:
                states[name] = ""
                self._omit(name, task)
        found = component["dag"].get("outputs", {}).get("artifacts", {})
        selected: dict[str, list[dict[str, Any]]] = {}
        for name, selection in found.items():
            (one,) = selection["artifactSelectors"]
            produced = outputs.get(one["producerSubtask"], Values()).artifacts
            selected[name] = produced.get(one["outputArtifactKey"], [])
        return states, Values({}, selected)

    def _task(
        self, name: str, task: dict[str, Any], given: Values, outputs: dict[str, Values]
    ) -> tuple[str, Values]:
        component = self.spec["components"][task["componentRef"]["name"]]
        try:
            values = self._inputs(task, component, given, outputs)
        except DriverError as error:
            self._set(self._add(f"{name}-driver"), "FAILED", str(error))
            self._omit(name, task)
            return "FAILED", Values()
        self._set(self._add(f"{name}-driver"), "SUCCEEDED")
        row = self._add(name)
        condition = task.get("triggerPolicy", {}).get("condition")
        if condition and not _holds(condition, values.parameters):
            self._set(row, "SKIPPED")
            self._omit_inside(component)
            return "SKIPPED", Values()
        if "dag" not in component:
            state, result = self._container(name, task, component, values)
        elif "parameterIterator" in task:
            state, result = self._loop(task["parameterIterator"], component, values)
        else:
            states, result = self._dag(component, values)
            state = "FAILED" if "FAILED" in states.values() else "SUCCEEDED"
        self._set(row, state)
        return state, result

    def _inputs(
        self,
        task: dict[str, Any],
        component: dict[str, Any],
        given: Values,
        outputs: dict[str, Values],
    ) -> Values:
        """Resolve the inputs of a task.

        A list of artifacts arrives in a graph as its last one: `GetInputArtifactsByExecutionID` in
        backend/src/v2/metadata/client.go keeps one artifact per name.
        """
        parameters, artifacts = _defaults(component), {}
        for name, source in task.get("inputs", {}).get("parameters", {}).items():
            if "runtimeValue" in source:
                constant = source["runtimeValue"]["constant"]
                uuid = "{{$.pipeline_job_uuid}}"
                parameters[name] = self.run_id if constant == uuid else constant
            elif "taskOutputParameter" in source:
                one = source["taskOutputParameter"]
                produced = outputs.get(one["producerTask"], Values()).parameters
                parameters[name] = _find(produced, one["outputParameterKey"], "output parameter")
            else:
                key = source["componentInputParameter"]
                parameters[name] = _find(given.parameters, key, "input parameter")
        for name, source in task.get("inputs", {}).get("artifacts", {}).items():
            if "taskOutputArtifact" in source:
                one = source["taskOutputArtifact"]
                produced = outputs.get(one["producerTask"], Values()).artifacts
                artifacts[name] = _find(produced, one["outputArtifactKey"], "output artifact")
            else:
                key = source["componentInputArtifact"]
                artifacts[name] = _find(given.artifacts, key, "input artifact")
        if "dag" in component:
            artifacts = {name: found[-1:] for name, found in artifacts.items()}
        return Values(parameters, artifacts)

    def _loop(
        self, iterator: dict[str, Any], component: dict[str, Any], values: Values
    ) -> tuple[str, Values]:
        """Run the body for each item. The body does not get the list that is iterated over."""
        items = iterator["items"]
        iterated = items.get("inputParameter", "")
        own = {name: value for name, value in values.parameters.items() if name != iterated}
        collected, failed = Values(), False
        for item in values.parameters[iterated] if iterated else json.loads(items["raw"]):
            self._set(self._add("iteration-item-driver"), "SUCCEEDED")
            given = Values(own | {iterator["itemInput"]: item}, values.artifacts)
            states, result = self._dag(component, given)
            failed |= "FAILED" in states.values()
            for name, found in result.artifacts.items():
                collected.artifacts.setdefault(name, []).extend(found)
        return ("FAILED" if failed else "SUCCEEDED"), collected

    def _container(
        self, name: str, task: dict[str, Any], component: dict[str, Any], values: Values
    ) -> tuple[str, Values]:
        """Run a step, or return the outputs of an earlier run with the same cache key."""
        self.inputs[name] = values
        container = self.spec["deploymentSpec"]["executors"][component["executorLabel"]][
            "container"
        ]
        # As `GenerateCacheKey` in backend/src/v2/cacheutils/cache.go: artifacts by their ids.
        ids = {key: [one["name"] for one in found] for key, found in values.artifacts.items()}
        key = digest_of([values.parameters, ids, component.get("outputDefinitions"), container])
        cached = self.folder.parent / "cache" / f"{key}.json"
        if task.get("cachingOptions", {}).get("enableCache") and cached.is_file():
            return "SUCCEEDED", Values(**json.loads(cached.read_text()))
        row = self._add("executor(0)")
        try:
            result = self._execute(name, component, container, values)
        except (Exception, SystemExit) as error:  # what ends a pod
            self._set(row, "FAILED")
            print(f"{name}: {type(error).__name__}: {error}", flush=True)
            return "FAILED", Values()
        self._set(row, "SUCCEEDED")
        cached.parent.mkdir(exist_ok=True)
        write_text(cached, json.dumps(result.__dict__))
        return "SUCCEEDED", result

    def _execute(
        self, name: str, component: dict[str, Any], container: dict[str, Any], values: Values
    ) -> Values:
        """Run the code of a component with kfp's executor."""
        folder = f"{self.run_id}/{name}-{len(self.rows)}"
        local = self.folder.parent / BUCKET.removeprefix("minio://") / folder
        local.mkdir(parents=True)
        defined = component.get("outputDefinitions", {})
        artifacts = {
            key: [{"name": f"{folder}/{key}", "uri": f"{BUCKET}{folder}/{key}", "metadata": {},
                   "type": one["artifactType"]}]
            for key, one in defined.get("artifacts", {}).items()
        }  # fmt: skip
        parameters = {
            key: {"outputFile": f"{local}/{key}"} for key in defined.get("parameters", {})
        }
        given = {key: {"artifacts": found} for key, found in values.artifacts.items()}
        written = {key: {"artifacts": found} for key, found in artifacts.items()}
        output = local / "executor_output.json"
        executor_input = {
            "inputs": {"parameterValues": values.parameters, "artifacts": given},
            "outputs": {"parameters": parameters, "artifacts": written, "outputFile": str(output)},
        }
        if container["command"][-1] == step_process.__name__:
            arguments = {EXECUTOR_INPUT: json.dumps(executor_input)}
            step_component.run_component(*(arguments.get(one, one) for one in container["args"]))
        else:
            _execute_code(container, executor_input)
        found = json.loads(output.read_text()) if output.is_file() else {}
        for key, (artifact,) in artifacts.items():
            (left,) = found["artifacts"][key]["artifacts"]
            artifact |= {"metadata": left["metadata"], "uri": left["uri"]}
        return Values(_as_struct(found.get("parameterValues", {})), artifacts)

    def _omit(self, name: str, task: dict[str, Any]) -> None:
        self._set(self._add(name), "")
        self._omit_inside(self.spec["components"][task["componentRef"]["name"]])

    def _omit_inside(self, component: dict[str, Any]) -> None:
        for name, task in component.get("dag", {}).get("tasks", {}).items():
            self._omit(name, task)

    def _add(self, name: str) -> dict[str, Any]:
        self.rows.append({"name": name, "state": "RUNNING", "error": "", "number": len(self.rows)})
        self._write("RUNNING")
        return self.rows[-1]

    def _set(self, row: dict[str, Any], state: str, error: str = "") -> None:
        row |= {"state": state, "error": error}
        self._write("RUNNING")

    def _write(self, state: str) -> None:
        write_text(self.folder / "state.json", json.dumps({"state": state, "tasks": self.rows}))


def _execute_code(container: dict[str, Any], executor_input: dict[str, Any]) -> None:
    """Run the code of a component that kfp has put into the compiled file."""
    module = types.ModuleType("ephemeral_component")
    function = container["args"][container["args"].index("--function_to_execute") + 1]
    code = compile(container["command"][-1], f"<{function}>", "exec", dont_inherit=True)
    exec(code, module.__dict__)
    Executor(executor_input, getattr(module, function)).execute()


def _defaults(component: dict[str, Any]) -> dict[str, Any]:
    defined = component.get("inputDefinitions", {}).get("parameters", {})
    values = {name: one["defaultValue"] for name, one in defined.items() if "defaultValue" in one}
    return dict(_as_struct(values))


def _as_struct(value: Any) -> Any:
    """Return a value as it comes out of a protobuf struct: whole numbers have no fraction."""
    if isinstance(value, dict):
        return {name: _as_struct(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_as_struct(one) for one in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _find(values: dict[str, Any], name: str, kind: str) -> Any:
    if name not in values:
        raise DriverError(f"parent DAG does not have {kind} {name}")
    return values[name]


def _in_order(tasks: Tasks) -> list[str]:
    """Return the names of tasks, each after those that it depends on."""
    order: list[str] = []

    def is_next(name: str) -> bool:
        return name not in order and set(tasks[name].get("dependentTasks", ())) <= set(order)

    while len(order) < len(tasks):
        order += filter(is_next, tasks)
    return order


def _holds(condition: str, parameters: dict[str, Any]) -> bool:
    """Evaluate the only form of conditions that the tests need."""
    found = re.fullmatch(r"inputs\.parameter_values\['([^']+)'\] == (true|false)", condition)
    assert found, condition
    return bool(parameters[found[1]] is (found[2] == "true"))


def main(folder: Path) -> None:
    """Run the pipeline in `<folder>/run.json`."""
    run = json.loads((folder / "run.json").read_text())
    artifact_types._MINIO_LOCAL_MOUNT_PREFIX = f"{folder.parent}/"
    backend = Backend(run["spec"], run["run_id"], folder)
    state = backend.run(run["parameters"])
    inputs = {name: values.__dict__ for name, values in backend.inputs.items()}
    write_text(folder / "inputs.json", json.dumps(inputs))
    backend._write(state)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
