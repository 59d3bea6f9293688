"""Published versions: `<destination>/<name>/<version>/`, complete or absent.

Next to the versions are `labels.json` (label to version) and hidden folders: `.publishing-*` of a
publisher that is running, `.withdrawn-N` of a version that was rolled back. Servers ignore them,
because only folders named by a number are versions. Destinations with a scheme (`s3://`, `gs://`)
are object stores, see `object_store.py`; others are folders, see `folder_store.py`.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from regraft_core.formats.fingerprint import check_fingerprint
from regraft_core.formats.published_versions import STABLE, read_version_manifest
from regraft_core.formats.version_names import version_number
from regraft_core.runtime.addresses import local_path, refuse_credentials
from regraft_core.runtime.errors import InputError, unknown_name
from regraft_core.runtime.object_stores import is_store_uri
from serving.publishing.folder_store import FolderStore
from serving.publishing.servable_check import probe

LABELS = (STABLE, "canary")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Version:
    """A published version: its number, its folder or URI, and whether it was added just now."""

    number: int
    path: str
    added: bool = True


@dataclass(frozen=True)
class Once:
    """Publishes a model once: no version is added if one of these already is the model.

    Attributes:
        digest: Of the model.
        since: Digest of the model that was published before; versions after it count. With "" all
            count, with None only the latest does.
    """

    digest: str
    since: str | None = None


class _AlreadyPublishedError(Exception):
    """A version is the model that is being published."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Store(Protocol):
    """The versions of one model at a destination."""

    def versions(self) -> list[int]:
        """Return the numbers of the complete versions, ascending."""

    def path(self, version: int) -> str:
        """Return the folder or URI of a version."""

    def add(
        self,
        folder: Path,
        check: Callable[[Path], None],
        confirm: Callable[[], None] = lambda: None,
    ) -> int:
        """Copy `folder` to a new, highest version if it passes `check`; return its number.

        `confirm` is called right before the version appears. Where there are locks, no other
        version appears meanwhile. Nothing is added if one of both raises.
        """

    def withdraw(self, version: int) -> None:
        """Hide a version from servers; its number is not used again."""

    def remove(self, version: int) -> None:
        """Delete a version that is not the latest."""

    def labels(self) -> dict[str, int]:
        """Return the labels and their versions."""

    def write_labels(self, labels: dict[str, int]) -> None:
        """Replace all labels at once."""

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Exclude other writers of labels and removals, if the store supports it."""


def publish_version(
    saved_model: str | os.PathLike[str],
    destination: str,
    name: str,
    once: Once | None = None,
    *,
    confirm: Callable[[], None] = lambda: None,
    served: bool = False,
) -> Version:
    """Publish an exported model as the next version of `name`.

    Before the copy is visible, it is compared with the fingerprint and loaded as in TF Serving to
    run its warm-up requests. Nothing is ever overwritten, and concurrent publishers get different
    versions.

    Args:
        saved_model: the exported folder.
        destination: folder or URI of the published models.
        name: the model's name.
        once: return the version that already is this model, also if another publisher adds it
            meanwhile.
        confirm: called right before the version appears; its error prevents it.
        served: a server has loaded and answered from the same bytes on such a machine, so that the
            fingerprint alone is compared.

    Raises:
        InputError: the model is damaged or not exported by Regraft, or the name is invalid.
        RegraftError: the model does not load or its warm-up requests fail.
    """
    store = open_store(destination, name)
    check_fingerprint(saved_model)

    def refuse_again() -> None:
        number = _find(store, once) if once else None
        if number is not None:
            raise _AlreadyPublishedError(number)

    def confirm_once() -> None:
        refuse_again()
        confirm()

    try:
        refuse_again()
        number = store.add(Path(saved_model), _check_digests if served else _check, confirm_once)
    except _AlreadyPublishedError as found:
        return Version(found.number, store.path(found.number), added=False)
    return Version(number, store.path(number))


def _find(store: Store, once: Once) -> int | None:
    """Return the version that is the model, among those that count."""
    found = None
    versions = store.versions()[::-1]
    for number in versions if once.since is not None else versions[:1]:
        digest = _digest(store.path(number))
        if digest == once.digest:
            found = found or number
        if number == found == versions[0] or digest == once.since:
            return found
    return None if once.since else found


def _digest(location: str) -> str:
    """Return the digest of the model of a version; empty if it is not known."""
    try:
        manifest = read_version_manifest(location)
    except InputError:
        return ""  # its manifest is damaged
    return manifest.digest if manifest else ""


def _check_digests(folder: Path) -> None:
    check_fingerprint(folder)


def _check(folder: Path) -> None:
    check_fingerprint(folder)
    probe(folder)


def publish_saved_model(
    saved_model: str | os.PathLike[str],
    destination: str,
    name: str,
    *,
    label: str = "",
    keep_last: int = 0,
    once: Once | None = None,
    confirm: Callable[[], None] = lambda: None,
    served: bool = False,
) -> Version:
    """Publish as `publish_version`, then set the label and delete old versions.

    Args:
        saved_model: the exported folder.
        destination: folder or URI of the published models.
        name: the model's name.
        label: `stable`, `canary` or "" for none.
        keep_last: number of versions to keep, in addition to the labeled ones; 0 keeps all.
        once, confirm, served: as for `publish_version`.
    """
    if label:
        _require_label(label)
    if keep_last < 0:
        raise InputError(f"keep_last: expected 0 or more, got {keep_last}")
    version = publish_version(saved_model, destination, name, once, confirm=confirm, served=served)
    if label:
        set_label(destination, name, label, version.number)
    if keep_last:
        delete_old_versions(destination, name, keep_last)
    return version


def set_label(destination: str, name: str, label: str, version: int | None = None) -> Version:
    """Set `label` (`stable` or `canary`) to `version`, by default the latest.

    Raises:
        InputError: the label or the version does not exist.
    """
    _require_label(label)
    store = open_store(destination, name)
    with store.locked():
        number = _existing(store, name, version)
        store.write_labels(store.labels() | {label: number})
    return Version(number, store.path(number))


def read_labels(destination: str, name: str) -> dict[str, int]:
    """Return the labels and their versions, without labels of missing versions."""
    store = open_store(destination, name)
    known = set(store.versions())
    return {label: number for label, number in store.labels().items() if number in known}


def rollback(destination: str, name: str, to: int | None = None) -> Version:
    """Withdraw the latest version, so that the one before it is served; return that one.

    Servers serve the highest number, so versions above `to` (by default the one before the latest)
    are renamed to `.withdrawn-N`; their numbers are not used again. Their labels are moved to `to`.

    Raises:
        InputError: there is no earlier version, or `to` is not a version.
    """
    store = open_store(destination, name)
    with store.locked():
        numbers = store.versions()
        if to is None and len(numbers) < 2:
            raise InputError(f"{name}: expected two versions or more to roll back, got {numbers}")
        number = _existing(store, name, numbers[-2] if to is None else to)
        if number == numbers[-1]:
            raise InputError(f"{name}: version {number} is already the latest")
        labels = store.labels()
        # Labels first: they must not name a missing version.
        store.write_labels({key: min(value, number) for key, value in labels.items()})
        for later in reversed([n for n in numbers if n > number]):
            store.withdraw(later)
    return Version(number, store.path(number))


def delete_old_versions(destination: str, name: str, keep_last: int) -> list[int]:
    """Delete all but the latest `keep_last` versions and the labeled ones; return the deleted."""
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
        InputError: the name is invalid, or the destination's scheme is not supported.
    """
    if not _NAME.fullmatch(name) or version_number(name) is not None:
        raise InputError(f"name: expected letters, digits, '_', '-', '.', got {name!r}")
    refuse_credentials("destination", destination)
    if is_store_uri(destination):
        from serving.publishing.object_store import ObjectStore

        return ObjectStore(destination, name)
    return FolderStore(local_path(destination).absolute() / name)


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
