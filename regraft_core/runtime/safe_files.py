"""Files that Regraft creates: never through a link that someone else has placed.

Modes follow the umask, so that what is published is readable by the user of a server.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from regraft_core.runtime.errors import InputError


def new_file(folder: Path, name: str) -> tuple[int, Path]:
    """Create a file with a random name, which starts with a dot and `name`.

    Returns:
        Its descriptor, open for writing, and its path.
    """
    path = folder / f".{name}.{secrets.token_hex(8)}.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(path, flags, 0o666), path


def new_folder(folder: Path, prefix: str) -> Path:
    """Create a folder with a random name that starts with `prefix`."""
    path = folder / f"{prefix}{secrets.token_hex(8)}"
    path.mkdir()
    return path


@contextlib.contextmanager
def lock_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a file to lock it, and create it if it does not exist; its content stays.

    Raises:
        InputError: it is a link.
    """
    if path.is_symlink():
        raise InputError(f"{path}: expected a lock file, found a link; remove it")
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o666), "r+b") as file:
        yield file


def refuse_links(folder: Path) -> None:
    """Refuse a folder that contains links, whose targets a copy would contain.

    Raises:
        InputError: it does; the message names one.
    """
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            raise InputError(f"{path}: expected a file or folder, found a link; replace it by its "
                             "target")  # fmt: skip
