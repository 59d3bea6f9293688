"""Records of a content store: how its entries were made, and the runs that can use them.

    <root>/.origins/<entry>/<step>-<digests>.json     one per options and inputs that made the entry
    <root>/.runs/<run>.json                           the options of a run's steps, by digest
    <root>/.removing.json                             entries that are being removed

A run can use an entry if its step has the same options and its inputs are entries that the run can
use. A run writes its record first and then reads which entries are being removed; `regraft gc` does
it the other way round. So at least one of them notices the other.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterable, Mapping
from typing import Any, TypeVar

from pydantic import Field, ValidationError

from regraft_core.formats.content_store import ContentStore
from regraft_core.formats.manifest_storage import Manifest, Record, digest_of
from regraft_core.formats.manifests.dataset import DatasetManifest
from regraft_core.formats.manifests.evaluation import EvaluationManifest
from regraft_core.formats.manifests.features import FeaturesManifest
from regraft_core.formats.manifests.model import CandidatesManifest, ModelManifest
from regraft_core.formats.manifests.saved_model import SavedModelManifest

ORIGINS_FOLDER, RUNS_FOLDER, REMOVING_FILE = ".origins", ".runs", ".removing.json"
KINDS: dict[str, type[Manifest]] = {
    "dataset": DatasetManifest, "features": FeaturesManifest, "head": ModelManifest,
    "candidates": CandidatesManifest, "evaluation": EvaluationManifest,
    "saved_model": SavedModelManifest,
}  # fmt: skip
_LENGTH = 16
# An interrupted removal is ignored after this time.
_REMOVAL_S = 3600.0

Origins = dict[str, list["EntryOrigin"]]
R = TypeVar("R", bound=Record)


class EntryOrigin(Record):
    """One way in which an entry was made."""

    step: str = Field(description="Step that wrote it.")
    options: str = Field(description="Digest of the step's options.")
    inputs: list[str] = Field(description="Names of the entries that the step read.")


class StartedRun(Record):
    """A run that uses the store."""

    started: float = Field(description="Time of its start, in seconds since 1970.")
    destination: str = Field(description="Folder or URI of published models.")
    model_name: str = Field(description="Name of the model.")
    steps: dict[str, str] = Field(description="Digest of the options by step.")


def manifest_of(name: str) -> str:
    """Return the file that completes an entry; "" if entries of this kind are never complete."""
    kind = KINDS.get(name.rpartition("-")[0])
    return kind.file_name if kind else ""


def options_digest(options: Mapping[str, Any]) -> str:
    """Return a digest of a step's options; Kubeflow passes all numbers as floating point."""
    return digest_of(_with_floats(dict(options)))[:_LENGTH]


def _with_floats(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_floats(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_with_floats(one) for one in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def record_origin(store: ContentStore, name: str, origin: EntryOrigin) -> None:
    """Add a way in which an entry is made."""
    inputs = digest_of(origin.inputs)[:_LENGTH]
    file = f"{ORIGINS_FOLDER}/{name}/{origin.step}-{origin.options}-{inputs}.json"
    store.write_record(file, origin.model_dump_json())


def read_origins(store: ContentStore, options: Collection[str] | None = None) -> Origins:
    """Return all ways in which entries were made, or only those with some digests of options."""
    found: Origins = {}
    for file in store.records(ORIGINS_FOLDER):
        _, name, key = file.split("/")
        if options is None or key.split("-")[1] in options:
            origin = _read(EntryOrigin, store.read_record(file))
            if origin is not None:
                found.setdefault(name, []).append(origin)
    return found


def usable_entries(origins: Origins, steps: Mapping[str, str]) -> set[str]:
    """Return the entries that a run can use.

    Args:
        origins: how all entries were made.
        steps: digest of the run's options by step.
    """
    usable: set[str] = set()
    pending = [(name, origin) for name, found in origins.items() for origin in found
               if steps.get(origin.step) == origin.options]  # fmt: skip
    while True:
        added = {name for name, origin in pending if usable.issuperset(origin.inputs)} - usable
        if not added:
            return usable
        usable |= added


def record_run(store: ContentStore, run: str, started: StartedRun) -> None:
    """Write the record of a run, or replace it."""
    store.write_record(f"{RUNS_FOLDER}/{run}.json", started.model_dump_json())


def read_runs(store: ContentStore) -> dict[str, StartedRun]:
    """Return the runs by the file of their record."""
    found = {file: _read(StartedRun, store.read_record(file))
             for file in store.records(RUNS_FOLDER)}  # fmt: skip
    return {file: run for file, run in found.items() if run is not None}


def record_removal(store: ContentStore, names: Iterable[str]) -> None:
    """Announce that entries are being removed."""
    store.write_record(REMOVING_FILE, json.dumps({"at": time.time(), "names": sorted(names)}))


def read_removal(store: ContentStore) -> set[str]:
    """Return the entries that are being removed."""
    found = json.loads(store.read_record(REMOVING_FILE) or '{"at": 0, "names": []}')
    return set(found["names"]) if time.time() - found["at"] < _REMOVAL_S else set()


def _read(kind: type[R], text: str | None) -> R | None:
    """Return a record; None if it is gone, or of another version of Regraft."""
    try:
        return kind.model_validate_json(text or "")
    except ValidationError:
        return None
