"""Which files a table may name: a table is data, so it does not decide what this machine reads."""

from __future__ import annotations

import posixpath
from pathlib import Path
from urllib.parse import urljoin

from regraft_core.runtime.addresses import is_http, is_url, redact, scheme_of
from regraft_core.runtime.errors import InputError

SCHEMES = ("http", "https", "s3", "gs")


def file_of_local_table(file: str, folder: Path, name: str, *, anywhere: bool) -> str:
    """Return the path or URL of a file that a table on this machine names.

    Args:
        file: as in the table; a path is relative to the table's folder.
        folder: of the table.
        name: of the table, for messages.
        anywhere: whether paths may leave the table's folder.

    Raises:
        InputError: it is another kind of URL, or outside the folder.
    """
    if _is_address(file):
        return _allowed(file, name)
    path = posixpath.normpath(posixpath.join(folder.absolute().as_posix(), file))
    if not anywhere and not Path(path).is_relative_to(posixpath.normpath(folder.absolute())):
        raise InputError(
            f"{name}: expected files below {folder.absolute()}, got {file!r}; "
            "--table-paths anywhere allows it"
        )
    return path


def file_in_folder(file: str, folder: Path, name: str) -> str:
    """Return the path of a file in the folder of a source that an annotation there names.

    Raises:
        InputError: it is a URL, outside the folder, or no name that a file can have.
    """
    if _is_address(file) or "\0" in file:
        raise InputError(f"{name}: expected the path of a file in the source, got {redact(file)!r}")
    return file_of_local_table(file, folder, name, anywhere=False)


def file_of_remote_table(file: str, table: str, name: str) -> str:
    """Return the URL of a file that a remote table names; a path is relative to the table.

    Raises:
        InputError: it is another kind of URL, or a file on this machine.
    """
    if _is_address(file):
        return _allowed(file, name)
    if is_http(table):
        return _allowed(urljoin(table, file), name)
    if scheme_of(table) not in SCHEMES:
        raise InputError(
            f"{name}: expected URLs (http, https, s3 or gs), because a table from there has no "
            f"folder, got {file!r}"
        )
    bucket, _, key = table.partition("://")[2].partition("/")
    joined = posixpath.normpath(posixpath.join("/", posixpath.dirname(key), file))
    return _allowed(f"{scheme_of(table)}://{bucket}{joined}", name)


def _is_address(file: str) -> bool:
    return is_url(file) or "::" in file


def _allowed(url: str, name: str) -> str:
    if scheme_of(url) not in SCHEMES or (not is_http(url) and "::" in url):
        raise InputError(f"{name}: expected a path or a URL (http, https, s3 or gs), "
                         f"got {redact(url)!r}")  # fmt: skip
    return url
