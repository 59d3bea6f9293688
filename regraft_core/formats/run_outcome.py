"""The outcome of a run on a cluster, and of the last publication: `<destination>/<model>/.runs/`.

Kubeflow Pipelines has no verdict, and a published and a rejected run have the same state. So
`record_verdict` writes `<run>.json`, `publish` adds the published version, and `conclude` reads it.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from regraft_core.formats.manifest_storage import Record, write_text
from regraft_core.formats.manifests import Check
from regraft_core.runtime.addresses import is_remote, local_path
from regraft_core.runtime.errors import InputError
from regraft_core.runtime.object_stores import access_error, is_store_uri, open_store_uri

RUNS_FOLDER = ".runs"


class RunOutcome(Record):
    """The verdict of one run and its result."""

    verdict: Literal["accepted", "rejected"] = Field(description="Decision of the gate.")
    strategy: str = Field(description="Strategy of the chosen candidate.")
    metrics: dict[str, float] = Field(description="Metrics on the test split.")
    checks: list[Check] = Field(default_factory=list, description="The gate's checks.")
    version: int | None = Field(default=None, description="Published version, if any.")
    path: str = Field(default="", description="Folder or URI of that version.")

    @property
    def accepted_only(self) -> bool:
        """Whether the gate accepted the model, and no version was published (yet)."""
        return self.verdict == "accepted" and self.version is None


class LastPublication(Record):
    """`last_publication.json`: what the model that was published last was compared with.

    After a publication the champion is the run's own model. The same run again, with the same
    inputs, compares nothing anew: its evaluation against the champion before is still valid.
    """

    inputs: str = Field(description="Digest of the run's options and of its sources' state.")
    champion_digest: str = Field(description="Digest of the champion before; empty without one.")
    saved_model_digest: str = Field(description="Digest of the published folder.")


def write_outcome(destination: str, model_name: str, run_id: str, outcome: RunOutcome) -> None:
    """Write the outcome of a run, or replace it."""
    _write(outcome_location(destination, model_name, run_id), outcome)


def read_outcome(destination: str, model_name: str, run_id: str) -> RunOutcome | None:
    """Return the outcome of a run, or None if it wrote none.

    Raises:
        InputError: the destination cannot be read, or the file is damaged.
    """
    location = outcome_location(destination, model_name, run_id)
    text = _read(location)
    try:
        return None if text is None else RunOutcome.model_validate_json(text)
    except ValidationError as error:
        raise InputError(f"{location}: expected the outcome of a run: {error}") from error


def write_last_publication(destination: str, model_name: str, last: LastPublication) -> None:
    """Write what a run is about to publish, or replace it."""
    _write(_location(destination, model_name, "last_publication"), last)


def read_last_publication(destination: str, model_name: str) -> LastPublication | None:
    """Return what was published last; None if it is not known.

    Raises:
        InputError: the destination cannot be read.
    """
    text = _read(_location(destination, model_name, "last_publication"))
    with contextlib.suppress(ValidationError):  # of another version of Regraft
        return None if text is None else LastPublication.model_validate_json(text)
    return None


def outcome_location(destination: str, model_name: str, run_id: str) -> str:
    """Return the path or URI of the outcome of a run.

    Raises:
        InputError: the run id could be a path.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", run_id):
        raise InputError(f"run id: expected letters, digits, '-' or '_', got {run_id!r}")
    return _location(destination, model_name, run_id)


def _location(destination: str, model_name: str, name: str) -> str:
    root = (destination if is_remote(destination) else str(local_path(destination))).rstrip("/")
    return f"{root}/{model_name}/{RUNS_FOLDER}/{name}.json"


def _write(location: str, record: Record) -> None:
    text = record.model_dump_json(indent=2) + "\n"
    if is_store_uri(location):
        store, path = open_store_uri(location)
        store.pipe_file(path, text.encode())
    else:
        Path(location).parent.mkdir(parents=True, exist_ok=True)
        write_text(Path(location), text)


def _read(location: str) -> str | None:
    try:
        if is_store_uri(location):
            store, path = open_store_uri(location)
            store.invalidate_cache()
            return str(store.cat_file(path).decode())
        return Path(location).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except InputError:
        raise
    except Exception as error:
        # Each store raises the errors of its own library.
        raise access_error(f"cannot read {location}", error) from error
