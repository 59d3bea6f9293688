"""Finds and removes content that no run and no published version uses."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipelines.local.run import STEPS_FOLDER, STORE_FOLDER
from regraft_core.formats.content_store import GENERATION_FILE, ContentStore, Usage
from regraft_core.formats.manifests.saved_model import SavedModelManifest
from regraft_core.formats.published_versions import read_version_manifest
from regraft_core.formats.store_records import (
    Origins,
    StartedRun,
    manifest_of,
    read_origins,
    read_runs,
    record_removal,
    usable_entries,
)
from regraft_core.runtime.addresses import local_path
from regraft_core.runtime.errors import InputError
from regraft_core.runtime.object_stores import is_store_uri
from serving.publishing.publish import open_store

DAY_S = 86_400.0
_ENTRY = re.compile(r"[a-z_]+(-[a-z]+)*-[0-9a-f]{16,64}")
_LEFTOVER = re.compile(r"\.[a-z_]+(-[a-z]+)*-[0-9a-f]{16,64}\.[0-9a-f]{8}")


@dataclass(frozen=True)
class Unused:
    """An entry that nothing uses, its size, and why it is removed."""

    name: str
    size: int
    reason: str


@dataclass(frozen=True)
class Cleanup:
    """What a cleanup removes, or would remove, and what stays; sizes in bytes."""

    location: str
    removed: list[Unused]
    removed_bytes: int
    kept: int
    kept_bytes: int
    notes: list[str]

    def as_json(self) -> dict[str, Any]:
        """Return the cleanup as values of JSON."""
        return asdict(self)


def find_store(location: str) -> ContentStore:
    """Return the content store at a location: that of a local run's folder, or the root of a store.

    Raises:
        InputError: there is no store.
    """
    if not is_store_uri(location):
        inside = local_path(location) / STEPS_FOLDER / STORE_FOLDER
        location = str(inside) if inside.is_dir() else location
    store = ContentStore(location)
    if store.read_record(GENERATION_FILE) is None:
        raise InputError(
            f"location: expected the folder of a run or a --work-dir, found no store at {location}"
        )
    return store


def clean_up(store: ContentStore, keep_days: float, *, dry_run: bool) -> Cleanup:
    """Remove what no published version, no latest run of a model and no recent run uses.

    It is safe while runs are in progress: they are recent, and content that changed during the last
    day stays in any case.

    Args:
        store: the store.
        keep_days: a run is recent if it started in these last days, at least one.
        dry_run: remove nothing.

    Raises:
        InputError: `keep_days` is below 1, or the store or a destination cannot be read.
    """
    if not keep_days >= 1:
        raise InputError(f"keep_days: expected 1 or more, got {keep_days:g}")
    now = time.time()
    usage = {name: one for name, one in store.usage().items()
             if _ENTRY.fullmatch(name) or _LEFTOVER.fullmatch(name)}  # fmt: skip
    used, notes = _used(store, now - keep_days * DAY_S)
    unused = list(_unused(usage, used, now, keep_days))
    if unused and not dry_run:
        _announce(store, unused)
        # A run that has started meanwhile may use what seemed unused.
        used, _ = _used(store, now - keep_days * DAY_S)
        unused = [one for one in unused if one.name not in used]
        for number, one in enumerate(unused):
            _announce(store, unused[number:])  # it expires
            store.remove(one.name, manifest_of(one.name))
        _announce(store, [])
    if not dry_run:
        _remove_old_records(store, now, keep_days)
    removed = {one.name for one in unused}
    kept = [one for name, one in usage.items() if name not in removed]
    return Cleanup(
        location=store.root,
        removed=sorted(unused, key=lambda one: -one.size),
        removed_bytes=sum(one.size for one in unused),
        kept=len(kept),
        kept_bytes=sum(one.size for one in kept),
        notes=notes,
    )


def _announce(store: ContentStore, removals: Iterable[Unused]) -> None:
    record_removal(store, [one.name for one in removals])


def _unused(
    usage: Mapping[str, Usage], used: set[str], now: float, keep_days: float
) -> Iterator[Unused]:
    for name, one in sorted(usage.items()):
        age_days = (now - one.changed) / DAY_S
        if name in used or age_days < 1:
            continue
        if name.startswith("."):
            yield Unused(name, one.size, "left by an interrupted copy")
        elif (manifest := manifest_of(name)) and manifest in one.files:
            yield Unused(name, one.size, "no run and no published version uses it")
        elif age_days >= keep_days:
            yield Unused(name, one.size, f"state of a step, unchanged for {age_days:.0f} days")


def _used(store: ContentStore, recent: float) -> tuple[set[str], list[str]]:
    """Return the entries in use, with notes on destinations that were not found."""
    origins, runs = read_origins(store), read_runs(store)
    used: set[str] = set()
    for run in _kept_runs(runs, recent).values():
        used |= usable_entries(origins, run.steps)
    notes = []
    for destination, model_name in sorted({(r.destination, r.model_name) for r in runs.values()}):
        if destination:
            used |= _published_entries(origins, destination, model_name)
            if not is_store_uri(destination) and not Path(destination).is_dir():
                notes.append(f"{destination}: no folder on this machine; its versions keep nothing")
    return used, notes


def _kept_runs(runs: Mapping[str, StartedRun], recent: float) -> dict[str, StartedRun]:
    """Return the recent runs, and the latest run of each model at each destination."""
    latest: dict[tuple[str, str], str] = {}
    for file, run in sorted(runs.items(), key=lambda item: item[1].started):
        latest[run.destination, run.model_name] = file
    return {file: run for file, run in runs.items()
            if run.started >= recent or file in latest.values()}  # fmt: skip


def _published_entries(origins: Origins, destination: str, model_name: str) -> set[str]:
    """Return the exported folders of all published versions, and what they were exported from."""
    versions = open_store(destination, model_name)
    found: set[str] = set()
    for number in versions.versions():
        try:
            manifest = read_version_manifest(versions.path(number))
        except InputError:
            continue  # a damaged version names nothing
        if isinstance(manifest, SavedModelManifest):
            name = f"saved_model-{manifest.digest[:32]}"
            found |= {name, f"evaluation-{manifest.evaluation_digest[:32]}"}
            found.update(*(origin.inputs for origin in origins.get(name, [])))
    return found


def _remove_old_records(store: ContentStore, now: float, keep_days: float) -> None:
    """Remove the records of runs that are not kept."""
    runs = read_runs(store)
    kept = _kept_runs(runs, now - keep_days * DAY_S)
    for file in set(runs) - set(kept):
        store.remove_record(file)
