"""Where the bytes to store are: in a worker's spool, or still in the source's own file."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from components.ingest.checks.invalid_image import InvalidImageError
from regraft_core.runtime.errors import InputError

MAX_FILE_BYTES = 1 << 30
STORED_COLUMNS = "id, path, file, spool, start, length"
_OPEN_FILES = 256


class StoredImages:
    """Reads stored bytes by rows of `STORED_COLUMNS`; keeps some spool files open."""

    def __init__(self, spool: Path) -> None:
        self._spool = spool
        self._opened: dict[int, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for descriptor in self._opened.values():
            os.close(descriptor)

    def read(self, row: Sequence[Any]) -> bytes:
        """Return the bytes of one image.

        Raises:
            InputError: the source's file is not what it was when it was looked at.
        """
        digest, _, file, number, start, length = row
        if number >= 0:
            return os.pread(self._descriptor(number), length, start)
        name = os.fsdecode(file)
        try:
            data = read_image(name)
        except InvalidImageError as error:
            raise InputError(f"{name} changed while it was read: {error.detail}") from error
        if hashlib.sha256(data).digest() != digest:
            raise InputError(f"{name} changed while it was read")
        return data

    def _descriptor(self, number: int) -> int:
        if number not in self._opened:
            if len(self._opened) >= _OPEN_FILES:
                os.close(self._opened.pop(next(iter(self._opened))))
            self._opened[number] = os.open(f"{self._spool}/{number}", os.O_RDONLY)
        return self._opened[number]


def read_image(file: str) -> bytes:
    """Read a file that must be a regular one.

    Raises:
        BadImageError: it is missing, a pipe or device, or cannot be read.
    """
    try:
        # A pipe would block the open for ever.
        descriptor = os.open(file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        reason = "missing-file" if isinstance(error, FileNotFoundError) else "unreadable"
        raise InvalidImageError(reason, error.strerror or str(error)) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise InvalidImageError("unreadable", "no regular file")
        if status.st_size > MAX_FILE_BYTES:
            raise InvalidImageError("unreadable", f"{status.st_size} bytes")
        return os.read(descriptor, status.st_size)
    except OSError as error:
        raise InvalidImageError("unreadable", error.strerror or str(error)) from error
    finally:
        os.close(descriptor)
