"""Object stores and whatever else fsspec can open: s3://, gs:// and others."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from components.ingest.sources.archives import member_parts
from components.ingest.sources.download_retry import (
    Deadline,
    FetchError,
    TransientError,
    with_retries,
)
from components.ingest.sources.transfer_progress import Advance
from regraft_core.formats.options import IngestOptions
from regraft_core.runtime.errors import InputError
from regraft_core.runtime.object_stores import open_store_uri

_BLOCK = 1 << 20


def is_file(address: str, options: IngestOptions) -> bool:
    """Tell a file from a folder.

    Raises:
        InputError: there is neither, or the store does not answer.
    """
    store, path = open_store_uri(address)
    deadline = Deadline(options.download_deadline_s)
    info = with_retries(lambda: _asked(lambda: store.info(path)), options, deadline)
    return bool(info["type"] == "file")


def download_object(address: str, part: Path, deadline: Deadline, advance: Advance) -> None:
    """Copy one object to the file `part`.

    Raises:
        TransientError, FetchError: as for other transfers.
    """
    store, path = open_store_uri(address)
    _asked(lambda: _copy(store, path, part, deadline, advance))


def download_folder(address: str, folder: Path, options: IngestOptions) -> None:
    """Copy all objects below an address into `folder`.

    Raises:
        InputError: the store does not answer, or a name is not safe.
    """
    store, path = open_store_uri(address)
    deadline = Deadline(options.download_deadline_s)
    names = with_retries(lambda: _asked(lambda: store.find(path)), options, deadline)
    for name in names:
        relative = os.path.relpath(name, path)
        target = folder.joinpath(*member_parts(relative))
        target.parent.mkdir(parents=True, exist_ok=True)

        def copy(name: str = name, target: Path = target) -> None:
            _asked(lambda: _copy(store, name, target, deadline, _unwatched))

        with_retries(copy, options, deadline)


def read_object(address: str, options: IngestOptions, limit: int) -> bytes:
    """Return the bytes of one object, at most `limit`.

    Raises:
        FetchError: it cannot be had.
    """
    store, path = open_store_uri(address)

    def read() -> bytes:
        with store.open(path, "rb") as source:
            data: bytes = source.read(limit + 1)
        if len(data) > limit:
            raise FetchError(f"more than {limit} bytes")
        return data

    return with_retries(lambda: _asked(read), options, Deadline(options.download_deadline_s))


def _unwatched(done: int, total: int | None) -> None:
    """Take progress that nobody watches."""


def _copy(store: Any, path: str, target: Path, deadline: Deadline, advance: Advance) -> None:
    with store.open(path, "rb") as source, open(target, "wb") as file:
        total = getattr(source, "size", None)
        while block := source.read(_BLOCK):
            file.write(block)
            advance(file.tell(), total)
            deadline.check()
        if total is not None and file.tell() != total:
            raise TransientError(f"truncated: expected {total} bytes, received {file.tell()}")


def _asked(action: Any) -> Any:
    """Run one request to a store; say of each failure whether it may pass."""
    try:
        return action()
    except (InputError, TransientError):
        raise
    except FileNotFoundError as error:
        raise FetchError("there is nothing at that address") from error
    except PermissionError as error:
        raise FetchError(f"permission denied: {error}") from error
    except Exception as error:
        # Each store raises errors of its own library.
        name = type(error).__name__
        if "Credential" in name:
            raise FetchError(f"permission denied: {error}") from error
        raise TransientError(f"{name}: {' '.join(str(error).split())[:200]}") from error
