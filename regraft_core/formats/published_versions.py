"""Reads published versions: `<destination>/<name>/<version>/`, some of them labeled.

The production version is the one labeled `stable` or, without that label, the latest, which
servers follow. A folder named by a version is one if it contains `saved_model.pb`.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from regraft_core.formats.fingerprint import FINGERPRINT_FILE, check_fingerprint
from regraft_core.formats.manifest_storage import digest_file, digest_of
from regraft_core.formats.manifests.saved_model import SavedModelManifest
from regraft_core.formats.version_names import version_names
from regraft_core.runtime.addresses import local_path, scheme_of
from regraft_core.runtime.errors import InputError
from regraft_core.runtime.object_stores import access_error, is_store_uri, open_store_uri

GRAPH_FILE = "saved_model.pb"
VERSION_LABELS_FILE = "labels.json"
STABLE = "stable"


def production_version(versions: Sequence[int], labels: Mapping[str, int]) -> int | None:
    """Return the production version; None if there is no version."""
    stable = labels.get(STABLE)
    return stable if stable in versions else max(versions, default=None)


def resolve_version(location: str, work: Path) -> Path | None:
    """Return the folder of the production version at `location`; None if there is no version.

    Args:
        location: the folder or URI of a model or of one of its versions.
        work: an empty folder; a version at a URI is copied to `<work>/<name>/<version>`.

    Raises:
        InputError: `location` is a file, its store does not respond, or the model is damaged.
    """
    remote = is_store_uri(location)
    folder = _fetch(location, work) if remote else _find_local(local_path(location))
    if folder is not None and any(
        (folder / name).exists() for name in (SavedModelManifest.file_name, FINGERPRINT_FILE)
    ):
        # A model that Regraft did not export has neither file and cannot be checked.
        check_fingerprint(folder)
    return folder


def locate_version(location: str) -> tuple[str, str] | None:
    """Return location and digest of the production version at `location`, without copying it.

    Args:
        location: the folder or URI of a model or of one of its versions.

    Returns:
        The location of the version itself, whose content never changes, and the digest in its
        manifest, or that of its graph if another program exported it; None if there is no version.

    Raises:
        InputError: `location` is a file, or its store does not respond.
    """
    if not is_store_uri(location):
        folder = _find_local(local_path(location).absolute())
        if folder is None:
            return None
        manifest = folder / SavedModelManifest.file_name
        return str(folder), _digest_in(manifest) or digest_file(folder / GRAPH_FILE)
    store, base = open_store_uri(location)
    with _reading(location):
        store.invalidate_cache()
        version = _find_in_store(store, base)
        if version is None:
            return None
        manifest_at = f"{version}/{SavedModelManifest.file_name}"
        found = store.cat_file(manifest_at) if store.exists(manifest_at) else b""
        graph = store.info(f"{version}/{GRAPH_FILE}")
        digest = _digest_of_manifest(found) or digest_of([str(graph.get("ETag") or graph)])
    return f"{scheme_of(location)}://{version}", digest


def read_version_manifest(location: str) -> SavedModelManifest | None:
    """Return the manifest of one published version, or None if another program exported it.

    Raises:
        InputError: its store does not respond, or the manifest is damaged.
    """
    if not is_store_uri(location):
        exists = (local_path(location) / SavedModelManifest.file_name).is_file()
        return SavedModelManifest.read(local_path(location)) if exists else None
    store, version = open_store_uri(location)
    with _reading(location):
        path = f"{version}/{SavedModelManifest.file_name}"
        if not store.exists(path):
            return None
        with tempfile.TemporaryDirectory() as folder:
            store.get_file(path, f"{folder}/{SavedModelManifest.file_name}")
            return SavedModelManifest.read(folder)


def read_version_file(location: str, name: str) -> str | None:
    """Return the text of one file of a published version or model, or None if it has none.

    Raises:
        InputError: it cannot be read, or its store does not respond.
    """
    if not is_store_uri(location):
        path = local_path(location) / name
        try:
            return path.read_text(encoding="utf-8") if path.is_file() else None
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: expected a text file: {error}") from error
    store, version = open_store_uri(location)
    with _reading(location):
        path_in_store = f"{version}/{name}"
        return str(store.cat_file(path_in_store).decode()) if store.exists(path_in_store) else None


def read_labels_of(model: str) -> dict[str, int]:
    """Return the labels and their versions of the model at a folder or URI.

    Raises:
        InputError: they cannot be read, or its store does not respond.
    """
    return parse_labels(read_version_file(model, VERSION_LABELS_FILE) or "{}", model)


def _digest_in(manifest: Path) -> str:
    return _digest_of_manifest(manifest.read_bytes()) if manifest.is_file() else ""


def _digest_of_manifest(text: bytes) -> str:
    try:
        return str(json.loads(text)["digest"])
    except (ValueError, KeyError, TypeError):
        return ""


def parse_labels(text: str, path: str) -> dict[str, int]:
    """Parse `labels.json`.

    Raises:
        InputError: it is not a JSON object of label to version.
    """
    try:
        values = json.loads(text)
        return {str(label): int(number) for label, number in values.items()}
    except (ValueError, AttributeError, TypeError, OverflowError, RecursionError) as error:
        raise InputError(f"{path}: expected an object of label to version: {error}") from error


def _find_local(folder: Path) -> Path | None:
    if not folder.exists():
        return None
    if not folder.is_dir():
        raise InputError(f"expected a folder, got the file {folder}")
    if (folder / GRAPH_FILE).is_file():
        return folder
    names = [path.name for path in folder.iterdir() if (path / GRAPH_FILE).is_file()]
    file = folder / VERSION_LABELS_FILE
    labels = parse_labels(file.read_text("utf-8"), str(file)) if file.is_file() else {}
    versions = version_names(names)
    number = production_version([*versions], labels)
    return None if number is None else folder / versions[number]


def _fetch(uri: str, work: Path) -> Path | None:
    store, base = open_store_uri(uri)
    with _reading(uri):
        store.invalidate_cache()
        version = _find_in_store(store, base)
        return None if version is None else _copy(store, version, work)


@contextlib.contextmanager
def _reading(uri: str) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        # Each store raises the errors of its own library.
        raise access_error(f"cannot read {uri}", error) from error


def _find_in_store(store: Any, base: str) -> str | None:
    """Return the path of a store's production version: `base` itself, or a folder in it."""
    if store.exists(f"{base}/{GRAPH_FILE}"):
        return base
    try:
        paths = store.ls(base, detail=False)
    except FileNotFoundError:
        return None
    names = [path.rstrip("/").rsplit("/", 1)[-1] for path in paths]
    numbered = version_names(names).values()
    versions = version_names(n for n in numbered if store.exists(f"{base}/{n}/{GRAPH_FILE}"))
    labels = {}
    if VERSION_LABELS_FILE in names:
        file = f"{base}/{VERSION_LABELS_FILE}"
        labels = parse_labels(store.cat_file(file).decode("utf-8"), file)
    number = production_version([*versions], labels)
    return None if number is None else f"{base}/{versions[number]}"


def _copy(store: Any, version: str, work: Path) -> Path:
    target = work.joinpath(*version.strip("/").rsplit("/", 2)[-2:])
    for path in store.find(version):
        relative = PurePosixPath(path.removeprefix(version).lstrip("/"))
        if ".." in relative.parts:
            raise InputError(f"{path}: expected a file in {version}")
        file = target / relative
        file.parent.mkdir(parents=True, exist_ok=True)
        store.get_file(path, str(file))
    return target
