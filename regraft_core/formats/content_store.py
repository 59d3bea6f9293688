"""Stores finished work by content: in a local folder, a mounted volume or a bucket.

    <root>/<name>/            files of an entry; its manifest is written last
    <root>/.<folder>/         records: which step wrote an entry, which runs use it
    <root>/generation         identifies the store; another one invalidates caches

A name is a kind with a digest of the content, such as `dataset-1f3b...`. An entry with a manifest
is complete, and its bulk never changes, so any number of writers and readers can share a store. An
entry without a manifest is work in progress, from which an interrupted step resumes.
"""

from __future__ import annotations

import contextlib
import datetime
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from regraft_core.formats.manifest_storage import write_text
from regraft_core.runtime.addresses import local_path
from regraft_core.runtime.errors import RegraftError
from regraft_core.runtime.object_stores import access_error, is_store_uri, open_store_uri

GENERATION_FILE = "generation"
# How S3, Google Cloud Storage and other file systems of fsspec name the time of a change.
_TIMES = ("LastModified", "updated", "mtime", "last_modified", "created")


@dataclass
class Usage:
    """Size in bytes, last change (seconds since 1970) and files of an entry."""

    size: int = 0
    changed: float = 0.0
    files: set[str] = field(default_factory=set)

    def count(self, file: str, size: int, changed: float) -> None:
        """Add a file."""
        self.size += size
        self.changed = max(self.changed, changed)
        self.files.add(file)


class ContentStore:
    """Entries below a local folder or a URL that fsspec opens.

    Every method raises InputError, in one line, if the store cannot be read or written.

    Raises:
        InputError: the URL's scheme is unknown, or what it needs is not installed.
    """

    def __init__(self, root: str) -> None:
        self.root = root.rstrip("/") or "/"
        self.remote = is_store_uri(root)
        if self.remote:
            self._files, self._base = open_store_uri(self.root)
        else:
            self._base = str(local_path(self.root).absolute())

    def location(self, name: str) -> str:
        """Return the folder or URL of an entry."""
        return f"{self.root}/{name}" if self.remote else f"{self._base}/{name}"

    def contains(self, name: str, manifest: str) -> bool:
        """Return whether an entry is complete: whether it has its manifest."""
        if not self.remote:
            return Path(self._base, name, manifest).is_file()
        with explained(self.root):
            self._files.invalidate_cache()
            return bool(self._files.exists(f"{self._base}/{name}/{manifest}"))

    def add(self, folder: Path, name: str, manifest: str) -> str:
        """Store the files of `folder` as an entry unless it exists, and return its location.

        In a local store the folder moves. Two writers of one name store the same content; the first
        wins.
        """
        if not self.contains(name, manifest):
            with explained(self.root):
                (self._upload if self.remote else self._move)(folder, name, manifest)
        return self.location(name)

    def sizes(self, name: str) -> dict[str, int]:
        """Return the sizes in bytes of an entry's files, by relative path."""
        if not self.remote:
            folder = Path(self._base, name)
            return {file: (folder / file).stat().st_size for file in files_of(folder)}
        base = f"{self._base}/{name}"
        with explained(self.root):
            self._files.invalidate_cache()
            found = self._files.find(base, detail=True)
        return {path.removeprefix(base).lstrip("/"): int(info.get("size") or 0)
                for path, info in found.items()}  # fmt: skip

    def fetch(self, name: str, file: str, target: Path) -> None:
        """Copy one file of an entry in a bucket to this machine."""
        with explained(self.root):
            target.parent.mkdir(parents=True, exist_ok=True)
            self._files.get_file(f"{self._base}/{name}/{file}", str(target))

    def mirror(self, folder: Path, name: str) -> None:
        """Make an entry in a bucket equal to a folder: new, changed and removed files.

        Files ending in `.json` are always written, and last, because they name the others.
        """
        stored, local = self.sizes(name), files_of(folder)
        with explained(self.root):
            for file in sorted(local, key=lambda file: (file.endswith(".json"), file)):
                if file.endswith(".json") or stored.get(file) != (folder / file).stat().st_size:
                    self._files.put_file(str(folder / file), f"{self._base}/{name}/{file}")
            for file in set(stored) - set(local):
                self._files.rm_file(f"{self._base}/{name}/{file}")

    def usage(self) -> dict[str, Usage]:
        """Return size and last change of all entries, complete or not, and of hidden leftovers."""
        found: dict[str, Usage] = {}
        with explained(self.root):
            for path, size, changed in self._listed(""):
                name, _, file = path.partition("/")
                if file:
                    found.setdefault(name, Usage()).count(file, size, changed)
        return found

    def remove(self, name: str, manifest: str = "") -> None:
        """Remove an entry: at once in a local store, and its manifest first in a bucket."""
        with explained(self.root):
            if not self.remote:
                removed = self._aside(name.removeprefix("."))
                Path(self._base, name).rename(removed)
                shutil.rmtree(removed)
                return
            if manifest and self._files.exists(f"{self._base}/{name}/{manifest}"):
                self._files.rm_file(f"{self._base}/{name}/{manifest}")
            if self._files.exists(f"{self._base}/{name}"):
                self._files.rm(f"{self._base}/{name}", recursive=True)
            self._files.invalidate_cache()

    def generation(self) -> str:
        """Return a text that changes if the store is created again."""
        found = self.read_record(GENERATION_FILE)
        if found is None:
            found = secrets.token_hex(8)
            self.write_record(GENERATION_FILE, found)
        return found

    def write_record(self, file: str, text: str) -> None:
        """Write a small file below the root, or replace it."""
        path = f"{self._base}/{file}"
        with explained(self.root):
            if self.remote:
                self._files.pipe_file(path, text.encode())
            else:
                Path(path).parent.mkdir(parents=True, exist_ok=True)
                write_text(Path(path), text)

    def read_record(self, file: str) -> str | None:
        """Return the content of a small file below the root; None if there is none."""
        path = f"{self._base}/{file}"
        with explained(self.root):
            try:
                if self.remote:
                    self._files.invalidate_cache()
                    return str(self._files.cat_file(path).decode())
                return Path(path).read_text(encoding="utf-8")
            except FileNotFoundError:
                return None

    def records(self, folder: str) -> dict[str, float]:
        """Return the files below a folder of records, with the time of their last change."""
        with explained(self.root):
            return {path: changed for path, _, changed in self._listed(folder)
                    if path.endswith(".json")}  # fmt: skip

    def remove_record(self, file: str) -> None:
        """Remove a record, if it exists."""
        with explained(self.root), contextlib.suppress(FileNotFoundError):
            if self.remote:
                self._files.rm_file(f"{self._base}/{file}")
            else:
                Path(self._base, file).unlink()

    def _listed(self, folder: str) -> Iterator[tuple[str, int, float]]:
        """Yield relative path, size in bytes and time of change of each file below a folder."""
        base = f"{self._base}/{folder}".rstrip("/")
        if self.remote:
            self._files.invalidate_cache()
            for path, info in self._files.find(base, detail=True).items():
                relative = path.removeprefix(self._base).lstrip("/")
                yield relative, int(info.get("size") or 0), _changed(info)
            return
        for path in Path(base).rglob("*"):
            with contextlib.suppress(FileNotFoundError):  # a step removed it meanwhile
                if path.is_file():
                    found = path.stat()
                    relative = path.relative_to(self._base).as_posix()
                    yield relative, found.st_size, found.st_mtime

    def _aside(self, name: str) -> Path:
        return Path(self._base, f".{name}.{secrets.token_hex(4)}")

    def _move(self, folder: Path, name: str, manifest: str) -> None:
        """Rename the folder to the entry, through a copy next to it if file systems differ."""
        target, staging = Path(self._base, name), self._aside(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            folder.rename(staging)
        except OSError:
            shutil.copytree(folder, staging)
            shutil.rmtree(folder)
        try:
            staging.rename(target)
        except OSError:
            if (target / manifest).is_file():  # another writer was faster
                shutil.rmtree(staging)
                return
            progress = self._aside(name)
            target.rename(progress)
            staging.rename(target)
            shutil.rmtree(progress)

    def _upload(self, folder: Path, name: str, manifest: str) -> None:
        stored = self.sizes(name)
        for file in sorted(files_of(folder), key=lambda file: (file == manifest, file)):
            if file == manifest or stored.get(file) != (folder / file).stat().st_size:
                self._files.put_file(str(folder / file), f"{self._base}/{name}/{file}")
        self._files.invalidate_cache()


def _changed(info: Mapping[str, Any]) -> float:
    """Return the time of a file's last change, in seconds; now if the store does not report it."""
    found = next((info[key] for key in _TIMES if info.get(key)), None)
    if isinstance(found, str):
        with contextlib.suppress(ValueError):
            found = datetime.datetime.fromisoformat(found)
    if isinstance(found, datetime.datetime):
        return found.timestamp()
    return float(found) if isinstance(found, int | float) else time.time()


def files_of(folder: Path) -> list[str]:
    """Return the relative paths of all files below a folder, sorted."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


@contextlib.contextmanager
def explained(url: str) -> Iterator[None]:
    """Turn the errors of a file system, or of a bucket's library, into one line.

    Raises:
        InputError: something failed below `url`.
    """
    try:
        yield
    except RegraftError:
        raise
    except Exception as error:
        # Each store raises the errors of its own library.
        raise access_error(url, error) from error
