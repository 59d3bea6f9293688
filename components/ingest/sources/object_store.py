"""Object stores and whatever else fsspec can open: s3://, gs:// and others."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from components.ingest.sources.download_retry import (
    Deadline,
    FetchError,
    TransientError,
    with_retries,
)
from components.ingest.sources.transfer_progress import Advance, DownloadSizeError
from regraft_core.formats.options.ingest import IngestOptions
from regraft_core.runtime.errors import InputError
from regraft_core.runtime.object_stores import open_store_uri

_BLOCK_BYTES = 1 << 20
# How stores name what changes with an object's content, the surest first.
_VERSIONS = (
    "ETag", "etag", "LastModified", "last_modified", "updated", "mtime", "created"
)  # fmt: skip
# What a store reads ahead of a stream; s3fs reads 50 MB by default.
_STREAMED_BLOCK_BYTES = 4 << 20
T = TypeVar("T")


class StoredObject(NamedTuple):
    """An object: its path in the store, its name below a URL, its bytes, and its version."""

    path: str
    name: str
    size: int
    version: str


def find_object(url: str, options: IngestOptions) -> StoredObject | None:
    """Return the object at a URL, or None if that is a folder of objects.

    Raises:
        InputError: there is neither, or the store does not respond.
    """
    store, path = open_store_uri(url)
    deadline = Deadline(options.download_deadline_s)
    info = with_retries(lambda: _attempt(lambda: store.info(path)), options, deadline)
    return _stored(path, path.rpartition("/")[2], info) if info["type"] == "file" else None


def download_object(url: str, part: Path, deadline: Deadline, advance: Advance) -> None:
    """Make one attempt to copy an object to the file `part`.

    Raises:
        TransientError: another attempt may succeed.
        FetchError: no other attempt will.
    """
    store, path = open_store_uri(url)
    _attempt(lambda: _copy(store, path, part, deadline, advance))


def list_objects(url: str, options: IngestOptions, deadline: Deadline) -> Iterator[StoredObject]:
    """Yield all objects below a URL, sorted by path.

    Raises:
        InputError: the store does not respond.
    """
    store, path = open_store_uri(url)
    found = with_retries(lambda: _attempt(lambda: store.find(path, detail=True)), options, deadline)
    for one in sorted(found):
        yield _stored(one, os.path.relpath(one, path), found[one])


def copy_object(
    url: str, path: str, target: Path, options: IngestOptions, deadline: Deadline, advance: Advance
) -> None:
    """Copy the object at a path of the URL's store to a file, with several attempts.

    Raises:
        FetchError: it cannot be read.
    """
    store, _ = open_store_uri(url)
    with_retries(
        lambda: _attempt(lambda: _copy(store, path, target, deadline, advance)), options, deadline
    )


def read_object(url: str, limit_bytes: int) -> bytes:
    """Return the content of a small object.

    Raises:
        TransientError: another attempt may succeed.
        FetchError: no other attempt will.
        DownloadSizeError: the content exceeds `limit_bytes`.
    """
    store, path = open_store_uri(url)

    def read() -> bytes:
        with store.open(path, "rb") as source:
            # Stores read ahead, so that a large object is refused by its size, if that is known.
            size = getattr(source, "size", None) or 0
            data: bytes = b"" if size > limit_bytes else source.read(limit_bytes + 1)
        if max(size, len(data)) > limit_bytes:
            raise DownloadSizeError(f"expected at most {limit_bytes} bytes, received more")
        return data

    return _attempt(read)


class ObjectBlocks:
    """An object, read in blocks from any position.

    Attributes:
        size: of the object; None before the first block, and if the store does not report it.
    """

    def __init__(self, url: str, deadline: Deadline) -> None:
        self.size: int | None = None
        self._store, self._path = open_store_uri(url)
        self._deadline = deadline
        self._file: Any = None

    def read_from(self, start: int) -> Generator[bytes, None, None]:
        """Yield the blocks of the object after its first `start` bytes.

        The object stays open, so that stores with versions refuse to go on with another one.

        Raises:
            TransientError: another attempt may succeed.
            FetchError: no other attempt will.
        """
        _attempt(lambda: self._seek(start))
        while block := _attempt(lambda: self._file.read(_BLOCK_BYTES)):
            yield block
            start += len(block)
            self._deadline.check()
        if self.size is not None and start != self.size:
            raise TransientError(f"truncated: expected {self.size} bytes, received {start}")

    def close(self) -> None:
        """Close the object."""
        if self._file is not None:
            self._file.close()

    def _seek(self, start: int) -> None:
        if self._file is None:
            self._file = self._store.open(self._path, "rb", block_size=_STREAMED_BLOCK_BYTES)
            self.size = getattr(self._file, "size", None)
        self._file.seek(start)


def _stored(path: str, name: str, info: dict[str, Any]) -> StoredObject:
    version = next((info[key] for key in _VERSIONS if info.get(key)), "")
    return StoredObject(path, name, int(info.get("size") or 0), str(version))


def _copy(store: Any, path: str, target: Path, deadline: Deadline, advance: Advance) -> None:
    with store.open(path, "rb") as source, open(target, "wb") as file:
        total = getattr(source, "size", None)
        while block := source.read(_BLOCK_BYTES):
            file.write(block)
            advance(file.tell(), total)
            deadline.check()
        if total is not None and file.tell() != total:
            raise TransientError(f"truncated: expected {total} bytes, received {file.tell()}")


def _attempt(action: Callable[[], T]) -> T:
    """Send one request to a store; raise `TransientError` for each failure that may pass."""
    try:
        return action()
    except (InputError, TransientError):
        raise
    except FileNotFoundError as error:
        raise FetchError("nothing found at this URL") from error
    except PermissionError as error:
        raise FetchError(f"permission denied: {error}") from error
    except Exception as error:
        # Each store raises errors of its own library.
        name = type(error).__name__
        if "Credential" in name:
            raise FetchError(f"permission denied: {error}") from error
        raise TransientError(f"{name}: {' '.join(str(error).split())[:200]}") from error
