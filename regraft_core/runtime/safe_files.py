"""Files that Regraft creates: never through a link that someone else has placed.

Modes follow the umask, so that what is published is readable by the user of a server.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from regraft_core.runtime.errors import InputError

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16}\.tmp", re.DOTALL)
_ABANDONED_S = 3600.0
"""Writing a file takes seconds. Not by a lock, which some network file systems do not have."""


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

    A reader sees the old content or all of the new one; a link at `path` is replaced, too. What
    killed processes left in the folder is removed.
    """
    _remove_abandoned(path.parent)
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


def _remove_abandoned(folder: Path) -> None:
    """Remove the temporary files of a folder that no process writes to any more."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if _TEMPORARY.fullmatch(entry.name) is None:
                continue
            with contextlib.suppress(OSError):  # another process removed it, or it is protected
                age_s = time.time() - entry.stat(follow_symlinks=False).st_mtime
                if age_s > _ABANDONED_S:
                    Path(entry.path).unlink()


def unfinished_files(path: Path) -> list[Path]:
    """Return the temporary files of `replaced_file(path)`, also those of processes that ended."""
    return list(path.parent.glob(f".{path.name}.{'[0-9a-f]' * 16}.tmp"))


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


def open_private_folder(path: Path, option: str) -> int:
    """Open a folder that only its owner can read, and create it if it does not exist.

    Returns:
        Its descriptor: files that are opened relative to it are in this folder, even if a link
        takes its place.

    Raises:
        InputError: it is a link or not a folder, or others may use it; the message starts with
            `option`.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        kind = "a link" if path.is_symlink() else error.strerror
        raise InputError(f"{option}: expected a folder at {path}, got {kind}") from error
    found = os.fstat(folder)
    own = found.st_uid == os.geteuid()
    if own and not found.st_mode & 0o077:
        return folder
    os.close(folder)
    if not own:
        raise InputError(f"{option}: expected a folder of this user at {path}, got another's")
    raise InputError(
        f"{option}: expected a folder that only its owner can use, got {path} with mode "
        f"{found.st_mode & 0o777:o}; run chmod 700 {path}"
    )


def copy_file(source: str, target: str) -> None:
    """Copy a file's content; where the file system can, both share its blocks.

    Linux does so in `copy_file_range`, on Btrfs, XFS and others; elsewhere the kernel copies.
    """
    if hasattr(os, "copy_file_range"):
        with (
            contextlib.suppress(OSError),  # other file systems, or an old kernel
            open(source, "rb") as read,
            open(target, "wb") as written,
        ):
            left = os.fstat(read.fileno()).st_size
            while left and (copied := os.copy_file_range(read.fileno(), written.fileno(), left)):
                left -= copied
            if not left:
                return
    shutil.copyfile(source, target)


def refuse_links(folder: Path) -> None:
    """Refuse a folder that contains links, whose targets a copy would contain.

    Raises:
        InputError: it does; the message names one.
    """
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            raise InputError(f"{path}: expected a file or folder, found a link; replace it by its "
                             "target")  # fmt: skip
