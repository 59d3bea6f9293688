"""Names of members of archives as text: zip and tar need not say in which encoding they are."""

from __future__ import annotations

import os
import struct
import tarfile
import zipfile
import zlib

from regraft_core.runtime.errors import InputError

ZIP_ENCODING = "cp437"
_UTF8_FLAG, _UNICODE_PATH = 0x800, 0x7075


class ArchiveError(InputError):
    """An archive that is damaged or must not be extracted."""


class MemberNames:
    """Decodes names: UTF-8 if they are, otherwise by the code page `encoding`.

    Without `encoding`, the code page is that of the zip format, and the use of it is a warning,
    because most programs that write no UTF-8 write the code page of their system.
    """

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding
        self._guessed: list[str] = []

    def warnings(self, archive: str) -> list[str]:
        """Return the warning of names whose code page is a guess."""
        if not self._guessed:
            return []
        return [
            f"{archive}: {len(self._guessed)} names are not UTF-8 and were read as {ZIP_ENCODING}, "
            f"for instance {self._guessed[0]!r}; if that is wrong, add --archive-encoding, such as "
            "cp1252"
        ]

    def of_zip(self, member: zipfile.ZipInfo) -> str:
        """Return the name of a member of a zip.

        Raises:
            ArchiveError: it is not in the stated code page.
        """
        name = member.orig_filename
        if member.flag_bits & _UTF8_FLAG or name.isascii():
            return name
        raw = name.encode(ZIP_ENCODING)
        if (found := _unicode_path(member.extra, raw)) is not None:
            return found
        if self._encoding:
            return self._decode(raw)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            self._guessed.append(name)
            return name

    def of_tar(self, member: tarfile.TarInfo) -> str:
        """Return the name of a member of a tar.

        Raises:
            ArchiveError: it is neither UTF-8 nor in the stated code page.
        """
        return self.of_bytes(os.fsencode(member.name))

    def of_bytes(self, raw: bytes) -> str:
        """Return a name of a tar from its bytes.

        Raises:
            ArchiveError: as `of_tar`.
        """
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            return self._decode(raw)

    def _decode(self, raw: bytes) -> str:
        encoding = self._encoding or "utf-8"
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError as error:
            shown = raw.decode("utf-8", "backslashreplace")
            raise ArchiveError(
                f"member '{shown}': expected a name in {encoding}; add or change --archive-encoding"
            ) from error


def _unicode_path(extra: bytes, raw: bytes) -> str | None:
    """Return the name of the extra field for it, if there is one and it is of this name."""
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<HH", extra)
        content, extra = extra[4 : 4 + length], extra[4 + length :]
        if kind == _UNICODE_PATH and len(content) > 5 and content[0] == 1:
            if struct.unpack_from("<I", content, 1)[0] != zlib.crc32(raw):
                return None
            return content[5:].decode("utf-8", "replace")
    return None
