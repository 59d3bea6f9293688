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


@contextlib.contextmanager
def replaced_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that replaces `path`, synced to the disk, when the block succeeds.

    A reader sees the old content or all of the new one; a link at `path` is replaced, too.
    """
    descriptor, temporary = new_file(path.parent, path.name)
    try:
        with open(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def new_folder(folder: Path, prefix: str) -> Path:
    """Create a folder with a random name that starts with `prefix`."""
    path = folder / f"{prefix}{secrets.token_hex(8)}"
    path.mkdir()
    return path


def refuse_link(path: Path) -> None:
    """Refuse to write to a file that is a link.

    Raises:
        InputError: it is one.
    """
    if path.is_symlink():
        raise InputError(f"{path}: expected a file or none, found a link; remove it")


@contextlib.contextmanager
def lock_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a file to lock it, and create it if it does not exist; its content stays.

    Raises:
        InputError: it is a link.
    """
    refuse_link(path)
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
