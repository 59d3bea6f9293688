"""How a run on a cluster ended, kept where it publishes: `<destination>/<model>/.runs/<run>.json`.

Kubeflow Pipelines has no verdict, and its states cannot tell published from rejected. So the step
at either end of the gate leaves this file, and whoever wants to know reads it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from regraft_core.formats.manifest_storage import Record, write_text
from regraft_core.formats.manifests import Check
from regraft_core.runtime.errors import InputError
from regraft_core.runtime.object_stores import is_store_uri, open_store_uri

RUNS_FOLDER = ".runs"


class RunOutcome(Record):
    """The verdict of one run, with what follows from it."""

    verdict: Literal["accepted", "rejected"] = Field(description="Decision of the gate.")
    strategy: str = Field(description="Strategy of the chosen candidate.")
    metrics: dict[str, float] = Field(description="Metrics on the test split.")
    checks: list[Check] = Field(default_factory=list, description="The gate's checks.")
    version: int | None = Field(default=None, description="Published version, if accepted.")
    path: str = Field(default="", description="Folder or URL of that version.")


def write_outcome(destination: str, model_name: str, run_id: str, outcome: RunOutcome) -> None:
    """Write the outcome of a run; writing it again replaces it."""
    text = outcome.model_dump_json(indent=2) + "\n"
    place = _place(destination, model_name, run_id)
    if is_store_uri(place):
        store, path = open_store_uri(place)
        store.pipe_file(path, text.encode())
    else:
        Path(place).parent.mkdir(parents=True, exist_ok=True)
        write_text(Path(place), text)


def read_outcome(destination: str, model_name: str, run_id: str) -> RunOutcome | None:
    """Return the outcome of a run, or None if it left none.

    Raises:
        InputError: the destination cannot be read, or the file is damaged.
    """
    place = _place(destination, model_name, run_id)
    try:
        if is_store_uri(place):
            store, path = open_store_uri(place)
            store.invalidate_cache()
            text = store.cat_file(path).decode()
        else:
            text = Path(place).read_text(encoding="utf-8")
        return RunOutcome.model_validate_json(text)
    except FileNotFoundError:
        return None
    except InputError:
        raise
    except (ValidationError, ValueError) as error:
        raise InputError(f"{place}: expected the outcome of a run: {error}") from error
    except Exception as error:
        # Each store's library raises errors of its own.
        line = " ".join(str(error).split())[:200]
        raise InputError(f"cannot read {place}: {type(error).__name__}: {line}") from error


def _place(destination: str, model_name: str, run_id: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", run_id):
        raise InputError(f"run id: expected letters, digits, '-' or '_', got {run_id!r}")
    root = destination.removeprefix("file://").rstrip("/")
    return f"{root}/{model_name}/{RUNS_FOLDER}/{run_id}.json"
