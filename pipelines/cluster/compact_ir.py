"""Makes a compiled pipeline smaller, because Argo stores parts of it many times.

Each node of a run repeats the specification of its step: its inputs with their descriptions, and
its code, which the container image has anyway. All nodes of a run must fit in one object of 1 MiB
(`workflow/packer/packer.go`, Argo 3.7.3); above it, the server of KFP 2.17.0 no longer sees the
states of the steps.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import yaml

EXECUTOR_INPUT = "{{$}}"  # replaced by KFP's launcher


def compact_file(path: Path) -> None:
    """Apply `compact` to a compiled .yaml or .json file; its first comments, a summary, stay."""
    text = path.read_text(encoding="utf-8")
    documents = list(yaml.safe_load_all(text))
    compact(documents[0])
    if path.suffix == ".json":
        text = json.dumps(documents[0], sort_keys=True)
    else:
        summary = itertools.takewhile(lambda line: line.startswith("#"), text.splitlines(True))
        text = "".join(summary) + yaml.safe_dump_all(documents, sort_keys=True)
    path.write_text(text, encoding="utf-8")


def compact(spec: dict[str, Any]) -> None:
    """Remove what no step reads from a pipeline's specification, in place.

    The steps run the components in the container image instead of copies of their code.

    The descriptions of the pipeline's own parameters, which the form of a new run shows, stay.
    """
    for component in spec["components"].values():
        for definitions in ("inputDefinitions", "outputDefinitions"):
            for kind in component.get(definitions, {}).values():
                for one in kind.values():
                    one.pop("description", None)
                    # Neither driver nor launcher reads it (KFP 2.17.0).
                    one.get("artifactType", {}).pop("schemaVersion", None)
    for executor in spec["deploymentSpec"]["executors"].values():
        container = executor["container"]
        step = container["args"][container["args"].index("--function_to_execute") + 1]
        container["command"] = ["python3", "-P", "-m", "pipelines.cluster.step_process"]
        container["args"] = [step, EXECUTOR_INPUT]
