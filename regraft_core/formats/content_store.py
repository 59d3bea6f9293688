"""Finished work by content, in one place: a local folder, a mounted volume or a bucket.

    <root>/<name>/            files of one piece of work; its manifest is written last
    <root>/generation         changes when something was removed, so that caches can notice

A name is a kind with a digest of the content, such as `dataset-1f3b...`. An entry whose manifest is
there is whole and never changes, so that any number of writers and readers may share a store. An
artifact that refers to an entry is a folder of kilobytes: the manifest, and `content.json` with the
entry's address and the size and SHA-256 of each of its files. Readers fetch only the files that
they open.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import Field, ValidationError

from regraft_core.formats.manifests import Record, digest_file, write_text
from regraft_core.runtime.errors import InputError, RegraftError
from regraft_core.runtime.object_stores import is_address, open_address

REFERENCE_FILE = "content.json"
GENERATION_FILE = "generation"


class StoredFile(Record):
    """Size in bytes and SHA-256 (hex) of one file of an entry."""

    size: int = Field(description="Bytes.")
    sha256: str = Field(description="SHA-256 (hex) of the bytes.")


class Reference(Record):
    """`content.json`: where the files of an artifact are stored."""

    location: str = Field(description="Folder or URL of the entry.")
    files: dict[str, StoredFile] = Field(description="Its files by relative path.")


class ContentStore:
    """Entries below a local folder or a URL that fsspec opens.

    Raises:
        InputError: the URL's scheme is unknown, or what it needs is not installed.
    """

    def __init__(self, root: str) -> None:
        self.root = root.rstrip("/") or "/"
        self.remote = is_address(root)
        if self.remote:
            self._files, self._base = open_address(self.root)
        else:
            self._base = str(Path(self.root.removeprefix("file://")).absolute())

    def location(self, name: str) -> str:
        """Return the address of an entry."""
        return f"{self.root}/{name}" if self.remote else f"{self._base}/{name}"

    def holds(self, name: str, manifest: str) -> bool:
        """Whether an entry is complete, which its manifest's presence says."""
        if self.remote:
            with _explained(self.root):
                self._files.invalidate_cache()
                return bool(self._files.exists(f"{self._base}/{name}/{manifest}"))
        return Path(self._base, name, manifest).is_file()

    def add(self, folder: Path, name: str, manifest: str) -> str:
        """Store the files of `folder` as an entry, unless it is there, and return its address.

        Locally the folder moves. Two writers of one name store the same content; the first wins.

        Raises:
            InputError: the store cannot be written to.
        """
        if not self.holds(name, manifest):
            with _explained(self.root):
                (self._upload if self.remote else self._move)(folder, name, manifest)
        return self.location(name)

    def names(self) -> list[str]:
        """Return the names of all entries, complete or not."""
        with _explained(self.root):
            if self.remote:
                self._files.invalidate_cache()
                try:
                    found = self._files.ls(self._base, detail=True)
                except FileNotFoundError:
                    return []
                paths = [item["name"] for item in found if item["type"] == "directory"]
                return sorted(path.rstrip("/").rsplit("/", 1)[-1] for path in paths)
            if not Path(self._base).is_dir():
                return []
            return sorted(path.name for path in Path(self._base).iterdir() if path.is_dir())

    def remove(self, names: Iterable[str]) -> None:
        """Remove entries, the generation first, so that no cache trusts what is being removed."""
        with _explained(self.root):
            self._write_generation()
            for name in names:
                if self.remote:
                    self._files.rm(f"{self._base}/{name}", recursive=True)
                else:
                    gone = Path(self._base, f".{name}.{secrets.token_hex(4)}")
                    Path(self._base, name).rename(gone)
                    shutil.rmtree(gone)

    def generation(self) -> str:
        """Return a text that changes whenever entries were removed, or the store made anew.

        Raises:
            InputError: the store cannot be read, or not be written to.
        """
        with _explained(self.root):
            path = f"{self._base}/{GENERATION_FILE}"
            if self.remote:
                self._files.invalidate_cache()
                if self._files.exists(path):
                    return str(self._files.cat_file(path).decode())
            elif Path(path).is_file():
                return Path(path).read_text(encoding="utf-8")
            return self._write_generation()

    def _write_generation(self) -> str:
        generation = secrets.token_hex(8)
        if self.remote:
            self._files.pipe_file(f"{self._base}/{GENERATION_FILE}", generation.encode())
        else:
            Path(self._base).mkdir(parents=True, exist_ok=True)
            write_text(Path(self._base, GENERATION_FILE), generation)
        return generation

    def _move(self, folder: Path, name: str, manifest: str) -> None:
        """Rename the folder, through a copy beside its place where file systems differ."""
        target = Path(self._base, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = target.with_name(f".{name}.{secrets.token_hex(4)}")
        try:
            folder.rename(staging)
        except OSError:
            shutil.copytree(folder, staging)
            shutil.rmtree(folder)
        try:
            staging.rename(target)
        except OSError:
            if not (target / manifest).is_file():  # an entry without its manifest is a broken one
                target.rename(target.with_name(f".{name}.{secrets.token_hex(4)}"))
                staging.rename(target)
            else:
                shutil.rmtree(staging)

    def _upload(self, folder: Path, name: str, manifest: str) -> None:
        files = sorted(_files_of(folder), key=lambda file: (file == manifest, file))
        for file in files:
            self._files.put_file(str(folder / file), f"{self._base}/{name}/{file}")
        self._files.invalidate_cache()


def refer_to(folder: Path, location: str, manifest: str) -> None:
    """Make an artifact's folder a reference: only its manifest stays, with `content.json`.

    Args:
        folder: the artifact as a step wrote it.
        location: the entry that has the same files.
        manifest: name of the manifest.
    """
    files = {
        file: StoredFile(size=(folder / file).stat().st_size, sha256=digest_file(folder / file))
        for file in _files_of(folder)
    }
    reference = Reference(location=location, files=files)
    write_text(folder / REFERENCE_FILE, reference.model_dump_json(indent=2) + "\n")
    for file in files:
        if file != manifest:
            (folder / file).unlink()


def content_file(folder: str | os.PathLike[str], name: str) -> Path:
    """Return the local path of an artifact's file, fetched first if it is stored elsewhere.

    A path that does not exist is returned as it is where the artifact is no reference, or names no
    such file: opening it then says so.

    Raises:
        InputError: the stored file is gone, cannot be read, or is not the one that was stored.
    """
    path = Path(folder) / name
    if path.exists() or not (Path(folder) / REFERENCE_FILE).is_file():
        return path
    reference = _read_reference(Path(folder) / REFERENCE_FILE)
    stored = reference.files.get(name)
    return path if stored is None else _fetch(f"{reference.location}/{name}", stored)


def content_folder(folder: str | os.PathLike[str]) -> Path:
    """Return a local folder with all of an artifact's files, for readers that need it whole.

    Raises:
        InputError: as `content_file`.
    """
    path = Path(folder)
    if not (path / REFERENCE_FILE).is_file():
        return path
    reference = _read_reference(path / REFERENCE_FILE)
    if not is_address(reference.location):
        return Path(reference.location)
    whole = Path(tempfile.mkdtemp(dir=_cache()))
    for name, stored in reference.files.items():
        target = whole / name
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(_fetch(f"{reference.location}/{name}", stored), target)
    return whole


def _read_reference(path: Path) -> Reference:
    try:
        reference = Reference.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError, ValueError) as error:
        raise InputError(f"{path}: expected a reference to stored content: {error}") from error
    for name in reference.files:
        if name.startswith("/") or ".." in Path(name).parts:
            raise InputError(f"{path}: expected names below the artifact, got {name!r}")
    return reference


def _fetch(url: str, stored: StoredFile) -> Path:
    """Return a local copy of a stored file, or the file itself in a local store."""
    if not is_address(url):
        path = Path(url)
        if not path.is_file() or path.stat().st_size != stored.size:
            raise _gone(url)
        return path
    target = _cache() / stored.sha256
    if not target.exists():
        files, source = open_address(url)
        partial = target.with_name(f"{target.name}.{secrets.token_hex(4)}")
        with _explained(url):
            try:
                files.get_file(source, str(partial))
            except FileNotFoundError:
                raise _gone(url) from None
        if digest_file(partial) != stored.sha256:
            partial.unlink()
            raise RegraftError(f"{url}: expected SHA-256 {stored.sha256[:12]}, read other bytes")
        partial.rename(target)
    return target


def _gone(url: str) -> InputError:
    return InputError(
        f"{url}: expected stored content, found none or another; run again without the cache"
    )


@functools.cache
def _cache() -> Path:
    """A folder of this process for fetched files; each is fetched once."""
    folder = tempfile.mkdtemp(prefix="regraft-content-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def _files_of(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


@contextlib.contextmanager
def _explained(url: str) -> Iterator[None]:
    """Turn the errors of a file system or a bucket's library into one line."""
    try:
        yield
    except RegraftError:
        raise
    except Exception as error:
        # Each store's library raises errors of its own.
        line = " ".join(str(error).split())[:200]
        raise InputError(f"{url}: {type(error).__name__}: {line}") from error
