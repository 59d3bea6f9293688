"""The outcome of a run on a cluster: `<destination>/<model>/.runs/<run>.json`.

Kubeflow Pipelines has no verdict, and a published and a rejected run have the same state. So
`publish` or `record_rejection` writes this file, and `conclude` reads it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from regraft_core.formats.manifest_storage import Record, write_text
from regraft_core.formats.manifests import Check
from regraft_core.runtime.addresses import is_remote, local_path
from regraft_core.runtime.errors import InputError
from regraft_core.runtime.object_stores import is_store_uri, open_store_uri

RUNS_FOLDER = ".runs"


class RunOutcome(Record):
    """The verdict of one run and its result."""

    verdict: Literal["accepted", "rejected"] = Field(description="Decision of the gate.")
    strategy: str = Field(description="Strategy of the chosen candidate.")
    metrics: dict[str, float] = Field(description="Metrics on the test split.")
    checks: list[Check] = Field(default_factory=list, description="The gate's checks.")
    version: int | None = Field(default=None, description="Published version, if accepted.")
    path: str = Field(default="", description="Folder or URI of that version.")


def write_outcome(destination: str, model_name: str, run_id: str, outcome: RunOutcome) -> None:
    """Write the outcome of a run, or replace it."""
    text = outcome.model_dump_json(indent=2) + "\n"
    location = outcome_location(destination, model_name, run_id)
    if is_store_uri(location):
        store, path = open_store_uri(location)
        store.pipe_file(path, text.encode())
    else:
        Path(location).parent.mkdir(parents=True, exist_ok=True)
        write_text(Path(location), text)


def read_outcome(destination: str, model_name: str, run_id: str) -> RunOutcome | None:
    """Return the outcome of a run, or None if it wrote none.

    Raises:
        InputError: the destination cannot be read, or the file is damaged.
    """
    location = outcome_location(destination, model_name, run_id)
    try:
        if is_store_uri(location):
            store, path = open_store_uri(location)
            store.invalidate_cache()
            text = store.cat_file(path).decode()
        else:
            text = Path(location).read_text(encoding="utf-8")
        return RunOutcome.model_validate_json(text)
    except FileNotFoundError:
        return None
    except InputError:
        raise
    except (ValidationError, ValueError) as error:
        raise InputError(f"{location}: expected the outcome of a run: {error}") from error
    except Exception as error:
        # Each store raises the errors of its own library.
        line = " ".join(str(error).split())[:200]
        raise InputError(f"cannot read {location}: {type(error).__name__}: {line}") from error


def outcome_location(destination: str, model_name: str, run_id: str) -> str:
    """Return the path or URI of the outcome of a run.

    Raises:
        InputError: the run id could be a path.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", run_id):
        raise InputError(f"run id: expected letters, digits, '-' or '_', got {run_id!r}")
    root = (destination if is_remote(destination) else str(local_path(destination))).rstrip("/")
    return f"{root}/{model_name}/{RUNS_FOLDER}/{run_id}.json"
