"""Reads and writes artifacts whose bulk is in a content store.

Such an artifact is a folder of kilobytes: its small files, and `content.json` with the entry's
location and the size and SHA-256 of each bulk file. Kubeflow's launcher copies each input artifact
completely before a step starts. So it copies only the reference, and the step fetches only the
files that it opens.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from regraft_core.formats.content_store import ContentStore, explained, files_of
from regraft_core.formats.manifest_storage import (
    Record,
    check_digest,
    digest_file,
    remember_digest,
    write_text,
)
from regraft_core.formats.store_records import EntryOrigin, options_digest, record_origin
from regraft_core.runtime.addresses import is_remote
from regraft_core.runtime.errors import InputError, RegraftError
from regraft_core.runtime.object_stores import is_store_uri, open_store_uri

REFERENCE_FILE = "content.json"
_ORIGIN_SUFFIX = ".origin"


class StoredFile(Record):
    """Size in bytes and SHA-256 (hex) of one file of an entry."""

    size: int = Field(description="Bytes.")
    sha256: str = Field(description="SHA-256 (hex) of the bytes.")


class Reference(Record):
    """`content.json`: where the bulk of an artifact is stored."""

    location: str = Field(description="Folder or URL of the entry.")
    files: dict[str, StoredFile] = Field(description="Its bulk files by relative path.")


def keep(
    artifact: Any,
    name: str,
    manifest: str,
    origin: Origin,
    small: Sequence[str] = ("*.json",),
    *,
    read_again: bool = True,
) -> None:
    """Keep the output of a step in the store, and make the artifact refer to it.

    On this machine the artifact becomes the entry itself, because kfp's cache identifies inputs by
    their paths. On a cluster an artifact must stay in the folder of its run: it keeps its small
    files there, with a reference to the bulk.

    Args:
        artifact: a kfp artifact whose folder a step wrote.
        name: name of the entry, with a digest of its content.
        manifest: the file that completes the entry.
        origin: how it was made, and the root of the store; "" leaves the artifact complete.
        small: globs of the files that the next steps always read, or nearly so. The launcher
            downloads them with the artifact.
        read_again: whether later steps read the bulk, so that the artifact needs the reference.

    Raises:
        InputError: the store cannot be written to.
    """
    if not origin.work_dir:
        return
    folder, store = Path(artifact.path), ContentStore(origin.work_dir)
    record_origin(store, name, origin.record)
    if not store.remote and not is_remote(artifact.uri):
        artifact.uri = store.add(folder, name, manifest)
        if folder.is_dir():  # the entry existed
            _renew(folder, Path(artifact.uri))
        return
    referring = Path(tempfile.mkdtemp(dir=folder.parent))
    refer_to(folder, referring, store.location(name), small)
    if not read_again:
        (referring / REFERENCE_FILE).unlink()
    store.add(folder, name, manifest)
    shutil.rmtree(folder, ignore_errors=True)
    referring.chmod(0o755)
    referring.rename(folder)


@dataclass(frozen=True)
class Origin:
    """Root of the store of a run ("" has none), and how a step makes an output."""

    work_dir: str
    record: EntryOrigin


def origin_of(step: str, options: Mapping[str, Any], *inputs: Any) -> Origin:
    """Return how a step makes its output: from which options, and which entries of the store.

    Args:
        step: name of the step.
        options: its options, as `resolve` made them, with `work_dir`.
        inputs: the artifacts that it reads.
    """
    work_dir = options.get("work_dir", "")
    names = {name for one in inputs for name in _entry_names(Path(one.path), work_dir)}
    record = EntryOrigin(step=step, options=options_digest(options), inputs=sorted(names))
    return Origin(work_dir, record)


def _entry_names(artifact: Path, work_dir: str) -> Iterator[str]:
    """Yield the entries that an artifact is, or refers to."""
    if not work_dir:
        return
    base = ContentStore(work_dir).location("")
    places = [str(artifact.absolute())]
    for path in (artifact.parent / REFERENCE_FILE, *artifact.rglob(REFERENCE_FILE)):
        if path.is_file():
            places.append(_read_reference(path).location)
    for place in places:
        if place.startswith(base):
            yield place.removeprefix(base).split("/")[0]


def pass_page(artifact: Any, file: str, page: Any) -> None:
    """Make a page of an artifact's folder the content of another artifact, which a UI shows.

    On a cluster the page moves, because all steps that read the artifact would download it.
    """
    target = Path(page.path)
    target.parent.mkdir(parents=True, exist_ok=True)
    source = Path(artifact.path) / file
    (shutil.move if is_remote(artifact.uri) else shutil.copyfile)(source, target)


def _renew(folder: Path, entry: Path) -> None:
    """Replace an entry's files by a later run's; its digest may not cover the small ones."""
    for name in files_of(folder):
        (entry / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(folder / name, entry / name)
    shutil.rmtree(folder)


def refer_to(folder: Path, target: Path, location: str, small: Sequence[str]) -> None:
    """Fill `target` with an artifact's small files and a reference to its bulk.

    Args:
        folder: the artifact as a step wrote it.
        target: an empty folder.
        location: the entry that has, or will have, the same files.
        small: globs of the files that are copied.
    """
    files = {}
    for name in files_of(folder):
        path = folder / name
        if any(Path(name).match(pattern) for pattern in small):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target / name)
        else:
            files[name] = StoredFile(size=path.stat().st_size, sha256=digest_file(path))
    _write_reference(target, Reference(location=location, files=files))


def copy_artifact(source: str | os.PathLike[str], target: Path) -> None:
    """Copy an artifact, or one folder in it, without its bulk if that is stored elsewhere.

    Args:
        source: the folder to copy; the reference may be in it or in the folder above.
        target: a folder to make, or an empty one.
    """
    source = Path(source)
    shutil.copytree(source, target, dirs_exist_ok=True, copy_function=_link)
    found = _reference_of(source)
    if found is not None and found[1]:
        reference, part = found
        files = {name.removeprefix(part): stored for name, stored in reference.files.items()
                 if name.startswith(part)}  # fmt: skip
        location = f"{reference.location}/{part}".rstrip("/")
        _write_reference(target, Reference(location=location, files=files))


def content_file(folder: str | os.PathLike[str], name: str) -> Path:
    """Return the local path of an artifact's file, fetched first if it is stored elsewhere.

    If neither the artifact nor its reference has the file, the path that does not exist is
    returned, and opening it fails.

    Raises:
        InputError: the stored file was removed or cannot be read.
        RegraftError: the stored file has changed.
    """
    path = Path(folder) / name
    found = None if path.exists() else _reference_of(Path(folder))
    if found is None:
        return path
    reference, part = found
    stored = reference.files.get(f"{part}{name}")
    return path if stored is None else _fetched(f"{reference.location}/{part}{name}", stored)


def content_folder(folder: str | os.PathLike[str]) -> Path:
    """Return a local folder with all files of an artifact, for readers that need all of them.

    Raises:
        InputError, RegraftError: as `content_file`.
    """
    path = Path(folder)
    found = _reference_of(path)
    if found is None:
        return path
    reference, part = found
    complete = Path(tempfile.mkdtemp(dir=fetched_files()))
    shutil.copytree(path, complete, dirs_exist_ok=True, copy_function=_link)
    (complete / REFERENCE_FILE).unlink(missing_ok=True)
    for name, stored in reference.files.items():
        if name.startswith(part):
            target = complete / name.removeprefix(part)
            target.parent.mkdir(parents=True, exist_ok=True)
            _link(str(_fetched(f"{reference.location}/{name}", stored)), str(target))
    return complete


def entry_of(artifact: Path) -> str:
    """Return the folder or URL of the entry that an artifact is or refers to.

    Raises:
        InputError: its reference is damaged.
    """
    found = _reference_of(artifact)
    return str(artifact) if found is None else found[0].location


def referring_folders(folder: Path) -> dict[str, Path]:
    """Return the artifacts at any depth below a folder whose bulk is stored elsewhere.

    By the folder or URL of their entry; if several refer to one, the last by name.

    Raises:
        InputError: a reference is damaged.
    """
    found = sorted(folder.rglob(REFERENCE_FILE))
    return {_read_reference(file).location: file.parent for file in found}


def working_folder(work_dir: str, name: str) -> Path | None:
    """Return a local folder for work in progress, with the files of an interrupted step.

    In a local store it is the entry itself; for a bucket it is a copy, which `save_work` uploads.

    Args:
        work_dir: root of the store; "" keeps nothing.
        name: name of the entry, or of the state that is kept until it is complete.

    Raises:
        InputError: the store cannot be read.
    """
    if not work_dir:
        return None
    store = ContentStore(work_dir)
    if not store.remote:
        return Path(store.location(name))
    folder = Path(tempfile.mkdtemp(dir=fetched_files()))
    for file in store.sizes(name):
        store.fetch(name, file, folder / file)
    origin = folder.with_name(folder.name + _ORIGIN_SUFFIX)
    origin.write_text(json.dumps([work_dir, name]), encoding="utf-8")
    return folder


def save_work(folder: Path) -> None:
    """Upload the changes of a working folder to its bucket.

    Raises:
        InputError: the bucket cannot be written to.
    """
    origin = folder.with_name(folder.name + _ORIGIN_SUFFIX)
    if origin.is_file():
        work_dir, name = json.loads(origin.read_text(encoding="utf-8"))
        ContentStore(work_dir).mirror(folder, name)


def _reference_of(folder: Path) -> tuple[Reference, str] | None:
    """Return the reference of an artifact, and the path of `folder` in it, as `part/` or ""."""
    for base, part in ((folder, ""), (folder.parent, f"{folder.name}/")):
        if (base / REFERENCE_FILE).is_file():
            return _read_reference(base / REFERENCE_FILE), part
    return None


def _read_reference(path: Path) -> Reference:
    try:
        reference = Reference.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError, ValueError) as error:
        raise InputError(f"{path}: expected a reference to stored content: {error}") from error
    for name in reference.files:
        if name.startswith("/") or ".." in Path(name).parts:
            raise InputError(f"{path}: expected names below the artifact, got {name!r}")
    return reference


def _write_reference(folder: Path, reference: Reference) -> None:
    write_text(folder / REFERENCE_FILE, reference.model_dump_json(indent=2) + "\n")


def _fetched(url: str, stored: StoredFile) -> Path:
    """Return a local copy of a stored file, or the file itself in a local store."""
    if not is_store_uri(url):
        path = Path(url)
        if not path.is_file() or path.stat().st_size != stored.size:
            raise _missing(url)
        check_digest(path, stored.sha256, "run without the cache")
        return path
    target = fetched_files() / stored.sha256 / url.rsplit("/", 1)[-1]
    if not target.exists():
        files, source = open_store_uri(url)
        target.parent.mkdir(exist_ok=True)
        partial = target.with_name(secrets.token_hex(8))
        with explained(url):
            try:
                files.get_file(source, str(partial))
            except FileNotFoundError:
                raise _missing(url) from None
        if digest_file(partial) != stored.sha256:
            partial.unlink()
            raise RegraftError(f"{url}: expected SHA-256 {stored.sha256[:12]}, read other bytes")
        partial.rename(target)
        remember_digest(target, stored.sha256)
    return target


def _missing(url: str) -> InputError:
    return InputError(
        f"{url}: expected the stored content, found none or other content; run without the cache"
    )


@functools.cache
def fetched_files() -> Path:
    """Return the folder of this process for fetched files; each file is fetched once."""
    folder = tempfile.mkdtemp(prefix="regraft-content-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
