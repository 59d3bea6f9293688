"""A folder or bucket of Parquet files, each of which is written completely or not at all."""

from __future__ import annotations

import io
from typing import Any

from regraft_core.formats.content_store import explained
from regraft_core.runtime.addresses import local_path
from regraft_core.runtime.object_stores import is_store_uri, open_store_uri
from regraft_core.runtime.safe_files import replaced_file


class OutputFolder:
    """Files by name. Every method raises InputError, in one line, if the folder cannot be used.

    Args:
        location: a path, or the URI of a bucket.

    Raises:
        InputError: the URI's scheme is unknown, or what it needs is not installed.
    """

    def __init__(self, location: str) -> None:
        self.location, self._remote = location, is_store_uri(location)
        if self._remote:
            self._store, self._base = open_store_uri(location)
        else:
            self._folder = local_path(location)

    def names(self) -> set[str]:
        """Return the names in the folder; none if it does not exist. Hidden files are ignored.

        The name of a subfolder ends in a slash; in a bucket, its files are named instead.
        """
        with explained(self.location):
            if self._remote:
                self._store.invalidate_cache()
                found = [path[len(self._base) + 1 :] for path in self._store.find(self._base)]
            else:
                entries = self._folder.iterdir() if self._folder.exists() else ()
                found = [one.name + "/" * one.is_dir() for one in entries]
        return {name for name in found if not name.startswith(".")}

    def read(self, name: str) -> bytes:
        """Return the content of a small file."""
        with explained(self.location):
            if self._remote:
                content: bytes = self._store.cat_file(f"{self._base}/{name}")
                return content
            return (self._folder / name).read_bytes()

    def read_metadata(self, name: str) -> dict[bytes, bytes] | None:
        """Return the metadata of a Parquet file; None if it has none, or is not one."""
        import pyarrow
        from pyarrow import parquet

        with explained(self.location):
            path = f"{self._base}/{name}" if self._remote else self._folder / name
            with self._store.open(path) if self._remote else open(path, "rb") as file:
                try:
                    found: dict[bytes, bytes] | None = parquet.read_schema(file).metadata
                except pyarrow.ArrowInvalid:
                    return None
        return found

    def write(self, name: str, content: bytes) -> None:
        """Write a file, or replace it."""
        with explained(self.location):
            if self._remote:
                self._store.pipe_file(f"{self._base}/{name}", content)
                return
            self._folder.mkdir(parents=True, exist_ok=True)
            with replaced_file(self._folder / name) as file:
                file.write(content)

    def write_table(self, name: str, table: Any) -> None:
        """Write a table of pyarrow as Parquet."""
        from pyarrow import parquet

        buffer = io.BytesIO()
        parquet.write_table(table, buffer)
        self.write(name, buffer.getvalue())

    def remove(self, name: str) -> None:
        """Remove a file."""
        with explained(self.location):
            if self._remote:
                self._store.rm_file(f"{self._base}/{name}")
            else:
                (self._folder / name).unlink()
