"""The bytes to store: in a spool file of a worker, or still in the source's own file."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

from components.ingest.catalog.rows import StoredImage
from components.ingest.checks.invalid_image import InvalidImageError
from regraft_core.runtime.errors import InputError

MAX_FILE_BYTES = 1 << 30
_OPEN_FILES = 256


@dataclass
class SpoolWriter:
    """A spool file, written by one worker."""

    number: int
    file: BinaryIO
    end: int

    def append(self, data: bytes) -> int:
        """Append `data`; return its start."""
        start = self.end
        self.file.write(data)
        self.end += len(data)
        return start


class StoredImageReader:
    """Reads the bytes to store of images; keeps some spool files open."""

    def __init__(self, spool: Path) -> None:
        self._spool = spool
        self._descriptors: dict[int, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for descriptor in self._descriptors.values():
            os.close(descriptor)

    def read(self, image: StoredImage) -> bytes:
        """Return the bytes of one image.

        Raises:
            InputError: the source's file changed after it was measured.
        """
        digest, _, file, spool, start, length, *_ = image
        if spool >= 0:
            return os.pread(self._descriptor(spool), length, start)
        name = os.fsdecode(file)
        try:
            data = read_file(name, start, length if start else None)
        except InvalidImageError as error:
            raise InputError(f"{name} changed while it was read: {error.detail}") from error
        if hashlib.sha256(data).digest() != digest:
            raise InputError(f"{name} changed while it was read")
        return data

    def _descriptor(self, spool: int) -> int:
        if spool not in self._descriptors:
            if len(self._descriptors) >= _OPEN_FILES:
                os.close(self._descriptors.pop(next(iter(self._descriptors))))
            self._descriptors[spool] = os.open(f"{self._spool}/{spool}", os.O_RDONLY)
        return self._descriptors[spool]


class PartReader:
    """Reads parts of files; the last file stays open, because its parts follow each other."""

    def __init__(self) -> None:
        self._file = ""
        self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def read(self, file: str, start: int, size: int) -> bytes:
        """Return `size` bytes of a file.

        Raises:
            InvalidImageError: as `read_file`.
        """
        if file != self._file:
            descriptor, _ = _open_regular(file)
            self.__exit__()
            self._file, self._descriptor = file, descriptor
        return _read_part(self._descriptor, start, size)


def read_file(file: str, start: int = 0, size: int | None = None) -> bytes:
    """Read a file that must be a regular one, or a part of it.

    Raises:
        InvalidImageError: it is missing, a pipe or device, too large, or cannot be read.
    """
    descriptor, whole = _open_regular(file)
    try:
        return _read_part(descriptor, start, whole if size is None else size)
    finally:
        os.close(descriptor)


def _open_regular(file: str) -> tuple[int, int]:
    """Return the descriptor and the size of a regular file."""
    try:
        # Opening a pipe would block forever.
        descriptor = os.open(file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        reason = "missing-file" if isinstance(error, FileNotFoundError) else "unreadable"
        raise InvalidImageError(reason, error.strerror or str(error)) from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise InvalidImageError("unreadable", "not a regular file")
    return descriptor, status.st_size


def _read_part(descriptor: int, start: int, size: int) -> bytes:
    if size > MAX_FILE_BYTES:
        raise InvalidImageError("unreadable", f"{size} bytes")
    try:
        return os.pread(descriptor, size, start)
    except OSError as error:
        raise InvalidImageError("unreadable", error.strerror or str(error)) from error
