"""Reads a tar as a stream, one member after another, without extracting it.

The headers are parsed here, not by `tarfile`, because that takes longer than checking a small
image, and its patterns for headers have had flaws (CVE-2024-6232). Formats: POSIX ustar and pax,
and GNU's long names.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import os
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from components.ingest.sources.archives import (
    MAX_RATIO,
    MAX_READ_BYTES,
    MIN_LIMIT_BYTES,
    member_parts,
)
from components.ingest.sources.member_names import ArchiveError, MemberNames
from components.ingest.sources.remote_stream import RemoteStream
from regraft_core.formats.options.ingest import IngestOptions

_BLOCK, _SKIPPED_AT_ONCE = 512, 1 << 20
_ADLER_BASE = 65521
_COMPRESSED: dict[bytes, Callable[[Any, str], Any]] = {
    b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open,
}  # fmt: skip
_DAMAGED = (EOFError, ValueError, lzma.LZMAError, zlib.error, gzip.BadGzipFile)
# Such names are safe as they are.
_PLAIN_NAME = re.compile(r"(?:[\w-][\w.-]{0,99}/){0,8}[\w-][\w.-]{0,99}", re.ASCII)
_FILES, _FOLDER, _LONG_NAME, _PAX, _PAX_GLOBAL = (b"0", b"\0", b"7"), b"5", b"L", b"x", b"g"


class _Limits:
    """What may still be read from a tar: bytes and members."""

    def __init__(self, options: IngestOptions) -> None:
        self._options = options
        self._bytes, self._members = options.max_archive_bytes, options.max_archive_members

    def count(self, size: int) -> None:
        """Count a member of `size` bytes.

        Raises:
            ArchiveError: there are too many members or bytes.
        """
        self._members -= 1
        self._bytes -= size
        if self._members < 0:
            raise _beyond(self._options.max_archive_members, "members")
        if self._bytes < 0:
            raise _beyond(self._options.max_archive_bytes, "bytes")


def _beyond(limit: int, what: str) -> ArchiveError:
    option = f"--max-archive-{what}"
    return ArchiveError(
        f"found more than {limit} {what}; increase {option} if the source is trusted"
    )


@contextlib.contextmanager
def open_tar(
    archive: Path | RemoteStream, name: str, options: IngestOptions
) -> Iterator[TarStream]:
    """Open a tar, which may be compressed.

    Args:
        archive: the file, or the stream of a remote one.
        name: of the archive, for messages.
        options: its limits, and the encoding of names.

    Raises:
        ArchiveError: it is damaged, too large, or has a link, a special file or an unsafe name;
            while members are read, too.
    """
    try:
        with _opened(archive) as file:
            start = file.peek(6)
            opener = next((f for m, f in _COMPRESSED.items() if start.startswith(m)), None)
            size = file.size if isinstance(file, RemoteStream) else os.fstat(file.fileno()).st_size
            limit = (
                options.max_archive_bytes
                if size is None
                else max(MIN_LIMIT_BYTES, MAX_RATIO * size)
            )
            with opener(file, "rb") if opener else contextlib.nullcontext(file) as content:
                can_seek = isinstance(content, io.BufferedReader)
                yield TarStream(content, limit, options, can_seek=can_seek)
    except ArchiveError as error:
        raise ArchiveError(f"{name}: {error}") from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise ArchiveError(f"{name}: truncated or damaged tar: {error}") from error
    except _DAMAGED as error:
        raise ArchiveError(f"{name}: truncated or damaged tar: {error}") from error


def _opened(archive: Path | RemoteStream) -> contextlib.AbstractContextManager[Any]:
    """Return a context with the file to read; who opened a stream closes it."""
    return open(archive, "rb") if isinstance(archive, Path) else contextlib.nullcontext(archive)


class TarStream:
    """A tar that is read from its start to its end."""

    def __init__(self, file: Any, limit: int, options: IngestOptions, *, can_seek: bool) -> None:
        self._file = file
        self._can_seek = can_seek
        self._left = limit
        self._limits = _Limits(options)
        self._names = MemberNames(options.archive_encoding)
        self._unread = 0

    def members(self) -> Iterator[tuple[str, int]]:
        """Yield name and size of each file; `read` returns its content, until the next one."""
        long_name: bytes = b""
        long_size = -1
        while any(header := self._read(_BLOCK)):
            raw, size, kind = _parse(header)
            if kind == _LONG_NAME:
                long_name = self._read_header(size).rstrip(b"\0")
                continue
            if kind in (_PAX, _PAX_GLOBAL):
                found = _pax_fields(self._read_header(size))
                if kind == _PAX:
                    long_name = found.get(b"path", long_name)
                    long_size = int(found.get(b"size", long_size))
                continue
            raw, size = long_name or raw, long_size if long_size >= 0 else size
            long_name, long_size = b"", -1
            name = self._names.of_bytes(raw)
            self._limits.count(size)
            self._unread = size
            if kind in _FILES and not name.endswith("/"):
                if not _PLAIN_NAME.fullmatch(name):
                    name = "/".join(member_parts(name))
                yield name, size
            elif kind not in (_FOLDER, *_FILES):
                raise ArchiveError(f"member {name!r} is a link or a special file")
            if self._unread:
                self._skip()
        while self._file.read(_SKIPPED_AT_ONCE):  # to the end, where the checksum is
            self._count(_SKIPPED_AT_ONCE)

    def read(self) -> bytes:
        """Return the content of the file that `members` has yielded last."""
        size, self._unread = self._unread, 0
        return self._read(size + -size % _BLOCK)[:size]

    def start(self) -> int | None:
        """Return where the content of that file starts; None if it is compressed or remote."""
        return self._file.tell() if self._can_seek else None

    def _read_header(self, size: int) -> bytes:
        if size > MAX_READ_BYTES:
            raise ArchiveError(f"found a header of {size} bytes")
        self._unread = size
        return self.read()

    def _count(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise ArchiveError(f"expanded to more than {MAX_RATIO} times its bytes")

    def _read(self, size: int) -> bytes:
        self._count(size)
        data = self._file.read(size)
        if len(data) < size:
            raise ArchiveError("truncated or damaged tar: it has no closing block")
        return data

    def _skip(self) -> None:
        left, self._unread = self._unread + -self._unread % _BLOCK, 0
        if self._can_seek:
            self._file.seek(left, os.SEEK_CUR)
            return
        while left:
            left -= len(self._read(min(left, _SKIPPED_AT_ONCE)))


def _parse(header: bytes) -> tuple[bytes, int, bytes]:
    """Return name, size and kind of a header.

    Raises:
        ArchiveError: its checksum differs, or a number is none.
    """
    if not _has_checksum(header):
        raise ArchiveError("truncated or damaged tar: found a header with another checksum")
    name = header[:100].partition(b"\0")[0]
    if header[345] and header.startswith(b"ustar\0", 257):
        name = header[345:500].partition(b"\0")[0] + b"/" + name
    return name, _number(header[124:136]), header[156:157]


def _has_checksum(header: bytes) -> bool:
    """Return whether the bytes of a header have the sum that it contains."""
    stored = header[148:156]
    # Adler-32 contains the sum of the bytes, which takes it a tenth of the time of `sum`.
    excess = (zlib.adler32(header) & 0xFFFF) - 1 - sum(stored) + 8 * 32 - _number(stored)
    if not excess % _ADLER_BASE:
        return True
    # Old programs add the bytes as signed ones.
    return not (excess - 256 * sum(byte >> 7 for byte in header)) % _ADLER_BASE


def _number(field: bytes) -> int:
    """Return a number in octal digits or, for large ones, in GNU's base 256."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    try:
        number = int(field.strip(b" \0") or b"0", 8)
    except ValueError:
        number = -1
    if number < 0:
        raise ArchiveError("truncated or damaged tar: found a header without a number")
    return number


def _pax_fields(data: bytes) -> dict[bytes, bytes]:
    """Return the fields of an extended header, each `LENGTH KEY=VALUE` and a line feed.

    Raises:
        ArchiveError: it is damaged, or of a sparse file.
    """
    fields: dict[bytes, bytes] = {}
    while data:
        length, space, _ = data[:12].partition(b" ")
        if not space or not re.fullmatch(rb"\d{1,8}", length) or int(length) <= len(length) + 1:
            raise ArchiveError("truncated or damaged tar: found a damaged extended header")
        key, equals, value = data[len(length) + 1 : int(length) - 1].partition(b"=")
        if not equals or key.startswith(b"GNU.sparse"):
            raise ArchiveError("found a sparse file or a damaged extended header")
        if key == b"size" and not re.fullmatch(rb"\d{1,18}", value):
            raise ArchiveError("truncated or damaged tar: found a header without a number")
        fields[key] = value
        data = data[int(length) :]
    return fields
