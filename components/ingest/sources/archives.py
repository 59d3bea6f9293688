"""Safe extraction of zip and tar archives: one unsafe or damaged member refuses the archive.

Names are checked before a member is written, sizes while it is written; links, devices and other
special members are refused, nested archives are never opened. The sizes, counts and checksums that
an archive declares are compared with its content.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from components.ingest.sources.member_names import ArchiveError, MemberNames
from components.ingest.sources.system_files import is_system_file
from regraft_core.formats.options.ingest import IngestOptions

MIN_LIMIT_BYTES = 256 << 20
MAX_RATIO = 200
"""Largest ratio of extracted to archived bytes; `MIN_LIMIT_BYTES` are always allowed."""
MAX_READ_BYTES = 1 << 20
START_BYTES = 512
_BLOCK = 1 << 20
_LONG_NUMBER = re.compile(rb"\d{101}")
_COMPRESSED = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
_DAMAGED = (
    EOFError, OSError, RuntimeError, NotImplementedError, ValueError, struct.error, lzma.LZMAError,
    tarfile.TarError, zipfile.BadZipFile, zlib.error, KeyError,
)  # fmt: skip


def archive_kind(file: Path) -> str:
    """Return `zip` or `tar` (also if compressed) by a file's first bytes; empty for others."""
    with open(file, "rb") as opened:
        return kind_of_start(opened.read(START_BYTES))


def kind_of_start(head: bytes) -> str:
    """Return the kind of an archive by its first `START_BYTES`, as `archive_kind`."""
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip"
    if head.startswith(tuple(_COMPRESSED)) or head[257:262] == b"ustar":
        return "tar"
    return ""


class Extracted(NamedTuple):
    """The number of ignored system files, and what to warn of."""

    ignored: int
    warnings: list[str]


def extract(archive: Path, folder: Path, options: IngestOptions, name: str = "") -> Extracted:
    """Extract `archive` to the empty `folder`.

    Raises:
        ArchiveError: it is damaged, encrypted, too large, or has an unsafe member.
    """
    limit = max(MIN_LIMIT_BYTES, MAX_RATIO * archive.stat().st_size)
    writer = _Writer(folder, min(options.max_archive_bytes, limit), options.max_archive_members)
    names = MemberNames(options.archive_encoding)
    try:
        if archive_kind(archive) == "zip":
            _extract_zip(archive, writer, names)
        else:
            _extract_tar(archive, writer, names)
    except ArchiveError as error:
        raise ArchiveError(f"{name or archive.name}: {error}") from error
    return Extracted(writer.ignored, names.warnings(name or archive.name))


def member_parts(name: str) -> tuple[str, ...]:
    """Return the folders and the file of a member's name, all below the target folder.

    Raises:
        ArchiveError: the name is absolute, leads outside, or is not portable.
    """
    if not name or name.startswith("/"):
        raise ArchiveError(f"member {name!r} has an absolute or empty name")
    if "\\" in name or re.match(r"[A-Za-z]:", name):
        raise ArchiveError(f"member {name!r} has a backslash or a drive letter; unpack it "
                           "and use the folder as the source")  # fmt: skip
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in name):
        raise ArchiveError(f"member {name!r} has a control character")
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if ".." in parts:
        raise ArchiveError(f"member {name!r} leads outside the archive")
    if any(len(part.encode()) > 255 for part in parts) or len(parts) > 64:
        raise ArchiveError(f"member {name[:80]!r} has a name that is too long")
    return parts


class _Writer:
    """Writes members below one folder, within limits, each to a path of its own."""

    def __init__(self, folder: Path, max_bytes: int, max_members: int) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self.max_members = max_members
        self.ignored = 0
        self._members = 0
        self._written = 0
        self._folders: dict[str, str] = {}
        self._files: set[str] = set()

    def check_count(self, members: int) -> None:
        """Refuse an archive with too many members."""
        if members > self.max_members:
            raise ArchiveError(f"expected at most {self.max_members} members, found {members}")

    def check_size(self, size: int) -> None:
        """Refuse an archive that is too large when extracted."""
        if size > self.max_bytes:
            raise ArchiveError(
                f"expected at most {self.max_bytes} bytes when extracted, found {size} or more"
            )

    def target_path(self, name: str, *, is_folder: bool) -> Path | None:
        """Return the path to write a member to; None for folders and system files."""
        self._members += 1
        self.check_count(self._members)
        parts = member_parts(name)
        if any(map(is_system_file, parts)):
            self.ignored += not is_folder
            return None
        self._check_collision(name, parts, is_folder=is_folder)
        if is_folder:
            self.folder.joinpath(*parts).mkdir(parents=True, exist_ok=True)
            return None
        path = self.folder.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _check_collision(self, name: str, parts: Sequence[str], *, is_folder: bool) -> None:
        """Refuse names that some file systems treat as equal."""
        for length in range(1, len(parts) + 1):
            exact = "/".join(parts[:length])
            key = unicodedata.normalize("NFC", unicodedata.normalize("NFC", exact).casefold())
            if length < len(parts) or is_folder:
                if self._folders.setdefault(key, exact) != exact or key in self._files:
                    raise ArchiveError(
                        f"member {name!r} collides with another in case or Unicode form"
                    )
            elif key in self._files or key in self._folders:
                raise ArchiveError(f"member {name!r} collides with another of the same name")
            else:
                self._files.add(key)

    def write(self, path: Path, name: str, source: IO[bytes], size: int) -> None:
        """Copy a member, counting the bytes as they are extracted."""
        written = 0
        with open(path, "xb") as target:
            while block := source.read(_BLOCK):
                written += len(block)
                self._written += len(block)
                self.check_size(self._written)
                target.write(block)
        if written != size:
            raise ArchiveError(f"member {name!r}: expected {size} bytes, found {written}")


def _extract_zip(archive: Path, writer: _Writer, names: MemberNames) -> None:
    _check_directory(archive, writer)
    try:
        with zipfile.ZipFile(archive) as opened:
            members = opened.infolist()
            writer.check_count(len(members))
            writer.check_size(sum(member.file_size for member in members))
            _check_overlap(members, opened.start_dir)
            for member in members:
                _extract_zip_member(opened, member, writer, names)
    except ArchiveError:
        raise
    except _DAMAGED as error:
        _raise_disk_errors(error)
        raise ArchiveError(f"truncated or damaged zip: {error}") from error


def _extract_zip_member(
    opened: zipfile.ZipFile, member: zipfile.ZipInfo, writer: _Writer, names: MemberNames
) -> None:
    name = names.of_zip(member)
    mode = stat.S_IFMT(member.external_attr >> 16)
    if mode not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise ArchiveError(f"member {name!r} is a link or a special file")
    if member.flag_bits & 0x1:
        raise ArchiveError(f"member {name!r} is encrypted")
    path = writer.target_path(name, is_folder=name.endswith("/"))
    if path is None:
        return
    try:
        with opened.open(member) as source:
            writer.write(path, name, source, member.file_size)
    except ArchiveError:
        raise
    except _DAMAGED as error:
        _raise_disk_errors(error)
        raise ArchiveError(f"member {name!r} is damaged: {error}") from error


def _check_directory(archive: Path, writer: _Writer) -> None:
    """Check the closing record first, because a directory can have millions of members."""
    with open(archive, "rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 66_000))
        tail = file.read()
        at = tail.rfind(b"PK\x05\x06")
        if at < 0 or len(tail) - at < 22:
            raise ArchiveError("truncated or damaged zip: it has no closing record")
        count, directory_bytes = struct.unpack_from("<HI", tail, at + 10)
        if at >= 20 and tail[at - 20 : at - 16] == b"PK\x06\x07":
            # Readers disagree: some follow the locator, zipfile takes the record before it.
            record = tail[at - 76 : at - 20] if at >= 76 else b""
            file.seek(min(size, struct.unpack_from("<Q", tail, at - 12)[0]))
            if not record.startswith(b"PK\x06\x06") or file.read(56) != record:
                raise ArchiveError(
                    "truncated or damaged zip: its zip64 records contradict each other"
                )
            count, directory_bytes = struct.unpack_from("<QQ", record, 32)
    writer.check_count(count)
    if directory_bytes > 512 * count + (1 << 20):
        raise ArchiveError(f"found a directory of {directory_bytes} bytes for {count} members")


def _check_overlap(members: Sequence[zipfile.ZipInfo], end: int) -> None:
    """Refuse members that share bytes, as zip bombs have."""
    ordered = sorted(members, key=lambda member: member.header_offset)
    nexts = [member.header_offset for member in ordered][1:] + [end] * bool(ordered)
    for member, following in zip(ordered, nexts, strict=True):
        least = 30 + len(member.orig_filename) + member.compress_size
        if member.header_offset + least > following:
            raise ArchiveError(f"member {member.orig_filename!r} overlaps another")


class _Bounded:
    """A decompressed stream that raises `ArchiveError` when it is too long.

    tarfile reads a member's extended header in one call of its declared size, so a single large
    read is refused too. So are long numbers in headers, because the patterns that tarfile searches
    take a time quadratic in their length (CVE-2024-6232).
    """

    def __init__(self, file: Any, writer: _Writer) -> None:
        self._file = file
        self._writer = writer
        self.in_header = True
        self.last = b""

    def read(self, size: int = -1) -> bytes:
        """Read at most `MAX_READ_BYTES`."""
        if not 0 <= size <= MAX_READ_BYTES:
            raise ArchiveError(f"found a header of {size} bytes")
        self.last = self._file.read(size)
        if self.in_header and _LONG_NUMBER.search(self.last):
            raise ArchiveError("found a header with a number of more than 100 digits")
        self._check(self._file.tell())
        return self.last

    def seek(self, position: int) -> int:
        """Go to a position, which decompresses everything before it."""
        self._check(position)
        return int(self._file.seek(position))

    def tell(self) -> int:
        """Return the position."""
        return int(self._file.tell())

    def _check(self, position: int) -> None:
        # Headers and padding add to the bytes of the members.
        if position > 2 * self._writer.max_bytes + (1 << 20):
            self._writer.check_size(position)


def _extract_tar(archive: Path, writer: _Writer, names: MemberNames) -> None:
    with open(archive, "rb") as file:
        head = file.read(6)
    opener: Any = next((f for m, f in _COMPRESSED.items() if head.startswith(m)), open)
    try:
        with opener(archive, "rb") as file:
            bounded: Any = _Bounded(file, writer)
            with tarfile.open(fileobj=bounded, mode="r:") as opened:
                while member := opened.next():
                    bounded.in_header = False
                    _extract_tar_member(opened, member, writer, names)
                    bounded.in_header = True
                    # tarfile keeps every member that it has read.
                    opened.members = []  # type: ignore[attr-defined]
            bounded.in_header = False
            _check_tar_end(bounded)
    except ArchiveError:
        raise
    except _DAMAGED as error:
        _raise_disk_errors(error)
        raise ArchiveError(f"truncated or damaged tar: {error}") from error


def _extract_tar_member(
    opened: tarfile.TarFile, member: tarfile.TarInfo, writer: _Writer, names: MemberNames
) -> None:
    name = names.of_tar(member)
    if not (member.isreg() or member.isdir()) or member.issparse():
        raise ArchiveError(f"member {name!r} is a link or a special file")
    path = writer.target_path(name, is_folder=member.isdir())
    source = opened.extractfile(member) if path else None
    if path and source:
        writer.write(path, name, source, member.size)


def _check_tar_end(file: _Bounded) -> None:
    """Refuse an archive without its closing block; read to the end, where the checksum is."""
    if len(file.last) < tarfile.BLOCKSIZE or any(file.last):
        raise ArchiveError("truncated or damaged tar: it has no closing block")
    while file.read(_BLOCK):
        pass


def _raise_disk_errors(error: BaseException) -> None:
    """Raise errors of the disk unchanged, because they are not about the archive."""
    if isinstance(error, OSError) and error.errno is not None:
        raise error
