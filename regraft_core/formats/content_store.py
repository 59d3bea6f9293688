"""Stores finished work by content: in a local folder, a mounted volume or a bucket.

    <root>/<name>/            files of an entry; its manifest is written last
    <root>/generation         changes if entries are removed, which invalidates caches

A name is a kind with a digest of the content, such as `dataset-1f3b...`. An entry with a manifest
is complete, and its bulk never changes, so any number of writers and readers can share a store. An
entry without a manifest is work in progress, from which an interrupted step resumes.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from regraft_core.formats.manifest_storage import write_text
from regraft_core.runtime.addresses import local_path
from regraft_core.runtime.errors import InputError, RegraftError
from regraft_core.runtime.object_stores import is_store_uri, open_store_uri

GENERATION_FILE = "generation"


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

    def add_copy(self, folder: Path, name: str, manifest: str) -> None:
        """Store a copy of `folder` as an entry unless it exists."""
        if self.remote:
            self.add(folder, name, manifest)
        elif not self.contains(name, manifest):
            with explained(self.root):
                Path(self._base).mkdir(parents=True, exist_ok=True)
                copy = self._aside(f"{name}.copy")
                shutil.copytree(folder, copy)
                self._move(copy, name, manifest)

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

    def names(self) -> list[str]:
        """Return the names of all entries, complete or not."""
        with explained(self.root):
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
        """Remove entries; the generation changes first, so that no cache uses removed entries."""
        with explained(self.root):
            self._write_generation()
            for name in names:
                if self.remote:
                    self._files.rm(f"{self._base}/{name}", recursive=True)
                else:
                    removed = self._aside(name)
                    Path(self._base, name).rename(removed)
                    shutil.rmtree(removed)

    def generation(self) -> str:
        """Return a text that changes if entries are removed or the store is created again."""
        path = f"{self._base}/{GENERATION_FILE}"
        with explained(self.root):
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
        line = " ".join(str(error).split())[:200]
        raise InputError(f"{url}: {type(error).__name__}: {line}") from error
