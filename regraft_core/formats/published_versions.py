"""Published versions as a reader finds them: `<destination>/<name>/<version>/`, some labeled.

The version in service is the one labeled `stable` or, without that label, the newest, which
servers follow. A folder with a number for a name is a version once it holds `saved_model.pb`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from regraft_core.formats.fingerprint import FINGERPRINT_FILE, check_fingerprint
from regraft_core.formats.manifests import SavedModelManifest, digest_file, digest_of
from regraft_core.runtime.errors import InputError
from regraft_core.runtime.object_stores import is_address, open_address

GRAPH_FILE = "saved_model.pb"
VERSION_LABELS_FILE = "labels.json"
STABLE = "stable"


def version_in_service(versions: Sequence[int], labels: Mapping[str, int]) -> int | None:
    """Return the version that counts as the one in service; None without any."""
    stable = labels.get(STABLE)
    return stable if stable in versions else max(versions, default=None)


def resolve_version(place: str, work: Path) -> Path | None:
    """Return the folder of the version in service at `place`; None while there is no version.

    Args:
        place: the folder or address of a model or of one of its versions.
        work: an empty folder; a version from an address is copied to `<work>/<name>/<version>`.

    Raises:
        InputError: `place` is a file, its store does not answer, or the model is damaged.
    """
    if is_address(place):
        folder = _fetched(place, work)
    else:
        folder = _local(Path(place.removeprefix("file://")))
    if folder is not None and any(
        (folder / name).exists() for name in (SavedModelManifest.file_name, FINGERPRINT_FILE)
    ):
        # A model that Regraft did not export has neither, and cannot be checked.
        check_fingerprint(folder)
    return folder


def locate_version(place: str) -> tuple[str, str] | None:
    """Return the address and the digest of the champion at `place`, of which nothing is copied.

    Args:
        place: the folder or URL of a model or of one of its versions.

    Returns:
        The version's own address, which never changes what it holds, and the digest in its
        manifest, or that of its graph if another program exported it; None while there is none.

    Raises:
        InputError: `place` is a file, or its store does not answer.
    """
    if not is_address(place):
        folder = _local(Path(place.removeprefix("file://")).absolute())
        if folder is None:
            return None
        manifest = folder / SavedModelManifest.file_name
        return str(folder), _digest_in(manifest) or digest_file(folder / GRAPH_FILE)
    store, base = open_address(place)
    with _reading(place):
        store.invalidate_cache()
        version = _version_at(store, base)
        if version is None:
            return None
        manifest_at = f"{version}/{SavedModelManifest.file_name}"
        found = store.cat_file(manifest_at) if store.exists(manifest_at) else b""
        graph = store.info(f"{version}/{GRAPH_FILE}")
        digest = _digest_of_manifest(found) or digest_of([str(graph.get("ETag") or graph)])
    return f"{place.split('://', 1)[0]}://{version}", digest


def _digest_in(manifest: Path) -> str:
    return _digest_of_manifest(manifest.read_bytes()) if manifest.is_file() else ""


def _digest_of_manifest(text: bytes) -> str:
    try:
        return str(json.loads(text)["digest"])
    except (ValueError, KeyError, TypeError):
        return ""


def parse_labels(text: str, place: str) -> dict[str, int]:
    """Parse `labels.json`.

    Raises:
        InputError: it is no object of label to version.
    """
    try:
        values = json.loads(text)
        return {str(label): int(number) for label, number in values.items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise InputError(f"{place}: expected an object of label to version: {error}") from error


def _local(folder: Path) -> Path | None:
    if not folder.exists():
        return None
    if not folder.is_dir():
        raise InputError(f"expected a folder, got the file {folder}")
    if (folder / GRAPH_FILE).is_file():
        return folder
    names = [path.name for path in folder.iterdir() if (path / GRAPH_FILE).is_file()]
    labels = folder / VERSION_LABELS_FILE
    known = parse_labels(labels.read_text("utf-8"), str(labels)) if labels.is_file() else {}
    number = version_in_service([int(name) for name in names if name.isdigit()], known)
    return None if number is None else folder / str(number)


def _fetched(address: str, work: Path) -> Path | None:
    store, base = open_address(address)
    with _reading(address):
        store.invalidate_cache()
        version = _version_at(store, base)
        return None if version is None else _copied(store, version, work)


@contextlib.contextmanager
def _reading(address: str) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        # Each store's library raises errors of its own.
        line = " ".join(str(error).split())[:200]
        raise InputError(f"cannot read {address}: {type(error).__name__}: {line}") from error


def _version_at(store: Any, base: str) -> str | None:
    """Return the path of a store's version in service: `base` itself, or one below it."""
    if store.exists(f"{base}/{GRAPH_FILE}"):
        return base
    try:
        found = store.ls(base, detail=False)
    except FileNotFoundError:
        return None
    names = [path.rstrip("/").rsplit("/", 1)[-1] for path in found]
    versions = [
        int(name)
        for name in names
        if name.isdigit() and store.exists(f"{base}/{name}/{GRAPH_FILE}")
    ]
    labels = {}
    if VERSION_LABELS_FILE in names:
        place = f"{base}/{VERSION_LABELS_FILE}"
        labels = parse_labels(store.cat_file(place).decode("utf-8"), place)
    number = version_in_service(versions, labels)
    return None if number is None else f"{base}/{number}"


def _copied(store: Any, version: str, work: Path) -> Path:
    target = work.joinpath(*version.strip("/").rsplit("/", 2)[-2:])
    for path in store.find(version):
        inside = PurePosixPath(path.removeprefix(version).lstrip("/"))
        if ".." in inside.parts:
            raise InputError(f"{path}: expected a file below {version}")
        file = target / inside
        file.parent.mkdir(parents=True, exist_ok=True)
        store.get_file(path, str(file))
    return target
