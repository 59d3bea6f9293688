"""Published versions: `<destination>/<name>/<version>/`, whole or not there at all.

Beside the versions stand `labels.json` (label to version) and hidden folders: `.publishing-*` of a
publisher at work, `.withdrawn-N` of a version that was rolled back. Servers ignore all of these,
as only folders with a number for a name are versions. Destinations with a scheme (`s3://`, `gs://`)
are object stores, see `serving/publishing/object_store.py`.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from regraft_core.formats.fingerprint import check_fingerprint
from regraft_core.formats.manifest_storage import write_text
from regraft_core.formats.published_versions import (
    GRAPH_FILE,
    STABLE,
    VERSION_LABELS_FILE,
    parse_labels,
)
from regraft_core.runtime.errors import InputError, unknown_name
from regraft_core.runtime.object_stores import is_store_uri
from serving.publishing.probe import probe

LABELS = (STABLE, "canary")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_STAGING, _WITHDRAWN, _RETIRED, _LOCK = ".publishing-", ".withdrawn-", ".retired-", ".lock"


@dataclass(frozen=True)
class Version:
    """A published version: its number and its folder or address."""

    number: int
    path: str


class Store(Protocol):
    """Where the versions of one model stand."""

    def versions(self) -> list[int]:
        """Return the numbers of the complete versions, ascending."""

    def path(self, version: int) -> str:
        """Return the folder or address of a version."""

    def add(self, folder: Path, check: Callable[[Path], None]) -> int:
        """Copy `folder` to a new, higher version that passes `check`; return its number."""

    def withdraw(self, version: int) -> None:
        """Take a version out of what servers see; its number is not given again."""

    def remove(self, version: int) -> None:
        """Delete a version that is not the newest."""

    def labels(self) -> dict[str, int]:
        """Return the version of each label."""

    def write_labels(self, labels: dict[str, int]) -> None:
        """Replace all labels at once."""

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Keep other writers of labels and removals out, as far as the store can."""


def publish_version(saved_model: str | os.PathLike[str], destination: str, name: str) -> Version:
    """Publish an exported model as the next version of `name`.

    The copy is checked, byte by byte and by loading it as TF Serving does and answering its
    warm-up requests, before anybody can see it. Nothing is ever overwritten, and two publishers
    get two versions.

    Raises:
        InputError: the model is damaged or not exported by Regraft, or the name is no model name.
        RegraftError: the model does not load or does not answer.
    """
    store = open_store(destination, name)
    check_fingerprint(saved_model)
    number = store.add(Path(saved_model), _prove)
    return Version(number, store.path(number))


def _prove(folder: Path) -> None:
    check_fingerprint(folder)
    probe(folder)


def publish_saved_model(
    saved_model: str | os.PathLike[str],
    destination: str,
    name: str,
    *,
    label: str = "",
    keep_last: int = 0,
) -> Version:
    """Publish as `publish_version`, then set `label` to it and drop old versions.

    Args:
        saved_model: the exported folder.
        destination: folder or address that holds models.
        name: the model's name.
        label: `stable`, `canary` or empty.
        keep_last: how many versions stay; labeled ones always do. 0 keeps all.
    """
    if label:
        _require_label(label)
    if keep_last < 0:
        raise InputError(f"keep_last: expected 0 or more, got {keep_last}")
    version = publish_version(saved_model, destination, name)
    if label:
        set_label(destination, name, label, version.number)
    if keep_last:
        retain(destination, name, keep_last)
    return version


def set_label(destination: str, name: str, label: str, version: int | None = None) -> Version:
    """Let `label` (`stable` or `canary`) name `version`, by default the newest.

    Raises:
        InputError: no such label or version.
    """
    _require_label(label)
    store = open_store(destination, name)
    with store.locked():
        number = _existing(store, name, version)
        store.write_labels(store.labels() | {label: number})
    return Version(number, store.path(number))


def read_labels(destination: str, name: str) -> dict[str, int]:
    """Return the versions that labels name, without those whose version is gone."""
    store = open_store(destination, name)
    known = set(store.versions())
    return {label: number for label, number in store.labels().items() if number in known}


def rollback(destination: str, name: str, to: int | None = None) -> Version:
    """Withdraw the newest version, so that the one before it is served; return that one.

    Servers follow the highest number, so versions above `to` (by default the one before the
    newest) leave their sight; they are kept as `.withdrawn-N`. Labels that named one of them name
    `to` afterwards, and its number is not given to a later version.

    Raises:
        InputError: there is no earlier version, or not this one.
    """
    store = open_store(destination, name)
    with store.locked():
        numbers = store.versions()
        if to is None and len(numbers) < 2:
            raise InputError(f"{name}: expected two versions or more to roll back, got {numbers}")
        number = _existing(store, name, numbers[-2] if to is None else to)
        if number == numbers[-1]:
            raise InputError(f"{name}: version {number} is the newest one already")
        labels = store.labels()
        # Labels first: they must not name what is not there.
        store.write_labels({key: min(value, number) for key, value in labels.items()})
        for later in reversed([n for n in numbers if n > number]):
            store.withdraw(later)
    return Version(number, store.path(number))


def retain(destination: str, name: str, keep_last: int) -> list[int]:
    """Delete all but the newest `keep_last` versions and the labeled ones; return what went."""
    if keep_last < 1:
        raise InputError(f"keep_last: expected 1 or more, got {keep_last}")
    store = open_store(destination, name)
    with store.locked():
        kept = set(store.labels().values())
        dropped = [n for n in store.versions()[:-keep_last] if n not in kept]
        for number in dropped:
            store.remove(number)
    return dropped


def open_store(destination: str, name: str) -> Store:
    """Return the store of the versions of `name` at `destination`.

    Raises:
        InputError: the name is no model name, or the destination's scheme is not known.
    """
    if not _NAME.fullmatch(name) or name.isdigit():
        raise InputError(f"name: expected letters, digits, '_', '-', '.', got {name!r}")
    destination = str(destination).removeprefix("file://")
    if is_store_uri(destination):
        from serving.publishing.object_store import ObjectStore

        return ObjectStore(destination, name)
    return FolderStore(Path(destination).absolute() / name)


def _require_label(label: str) -> None:
    if label not in LABELS:
        raise unknown_name("label", label, LABELS)


def _existing(store: Store, name: str, version: int | None) -> int:
    numbers = store.versions()
    if not numbers:
        raise InputError(f"{name}: expected a published version, found none")
    if version is None:
        return numbers[-1]
    if version not in numbers:
        raise InputError(f"{name}: expected one of the versions {numbers}, got {version}")
    return version


class FolderStore:
    """Versions in a folder of a file system: written beside, synced, renamed."""

    def __init__(self, base: Path) -> None:
        self._base = base

    def versions(self) -> list[int]:
        """As `Store.versions`."""
        if not self._base.is_dir():
            return []
        numbers = (int(p.name) for p in self._base.iterdir() if p.name.isdigit())
        return sorted(n for n in numbers if (self._base / str(n) / GRAPH_FILE).is_file())

    def path(self, version: int) -> str:
        """As `Store.path`."""
        return str(self._base / str(version))

    def add(self, folder: Path, check: Callable[[Path], None]) -> int:
        """As `Store.add`; the version appears by one rename."""
        self._base.mkdir(parents=True, exist_ok=True)
        with self._staging() as staged:
            shutil.copytree(folder, staged, dirs_exist_ok=True)
            check(staged)
            staged.chmod(0o755)
            _sync_tree(staged)
            number = self._rename_to_next(staged)
        _sync(self._base)
        return number

    def withdraw(self, version: int) -> None:
        """As `Store.withdraw`."""
        (self._base / str(version)).rename(self._base / f"{_WITHDRAWN}{version}")
        _sync(self._base)

    def remove(self, version: int) -> None:
        """As `Store.remove`; it leaves by one rename before its files go."""
        retired = Path(tempfile.mkdtemp(prefix=_RETIRED, dir=self._base))
        (self._base / str(version)).rename(retired / str(version))
        shutil.rmtree(retired)

    def labels(self) -> dict[str, int]:
        """As `Store.labels`."""
        path = self._base / VERSION_LABELS_FILE
        return parse_labels(path.read_text("utf-8"), str(path)) if path.is_file() else {}

    def write_labels(self, labels: dict[str, int]) -> None:
        """As `Store.write_labels`."""
        write_text(
            self._base / VERSION_LABELS_FILE, json.dumps(labels, indent=2, sort_keys=True) + "\n"
        )

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """As `Store.locked`; the lock ends with the process."""
        if not self._base.is_dir():
            yield
            return
        with open(self._base / _LOCK, "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def _staging(self) -> Iterator[Path]:
        """Yield a hidden folder that is locked while its publisher lives; sweep dead ones."""
        with self.locked():
            self._sweep()
            staged = Path(tempfile.mkdtemp(prefix=_STAGING, dir=self._base))
            held = os.open(staged, os.O_RDONLY)
            fcntl.flock(held, fcntl.LOCK_EX)
        try:
            yield staged
        except BaseException:
            shutil.rmtree(staged, ignore_errors=True)
            raise
        finally:
            os.close(held)

    def _sweep(self) -> None:
        for dead in self._base.glob(f"{_STAGING}*"):
            held = os.open(dead, os.O_RDONLY)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue  # its publisher lives
            finally:
                os.close(held)
            shutil.rmtree(dead, ignore_errors=True)
        for dead in self._base.glob(f"{_RETIRED}*"):
            shutil.rmtree(dead, ignore_errors=True)

    def _rename_to_next(self, staged: Path) -> int:
        number = max(self._numbers_ever_seen(), default=0) + 1
        while True:
            try:
                staged.rename(self._base / str(number))
                return number
            except OSError:
                # Another publisher was faster: a rename onto a folder with content fails.
                if not (self._base / str(number)).exists():
                    raise
                number += 1

    def _numbers_ever_seen(self) -> list[int]:
        names = (p.name.removeprefix(_WITHDRAWN) for p in self._base.iterdir())
        return [int(name) for name in names if name.isdigit()]


def _sync(path: Path) -> None:
    held = os.open(path, os.O_RDONLY)
    try:
        os.fsync(held)
    finally:
        os.close(held)


def _sync_tree(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        _sync(path)
