"""The files of a request log: compressed, private, and together below a limit.

A file is closed when it is large enough, and the oldest files are deleted. What was flushed can be
read even if the server is killed.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import os
import zlib
from pathlib import Path

from regraft_core.formats.request_log import LOG_FILE
from regraft_core.runtime.errors import InputError
from regraft_core.runtime.safe_files import open_private_folder
from serving.request_log_options import FOLDER_OPTION

_FILES = 8  # at least so many are kept, so that deleting the oldest loses little
_MAX_FILE_BYTES = 64 << 20
_FRAME_BYTES = 64  # gzip's header and trailer, and the marks of a flush
_NAME = "requests-%Y%m%dT%H%M%S%fZ.jsonl.gz"


class LogFiles:
    """Writes lines to the files in a folder, which only one server may use. Not thread-safe."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        """Open the folder.

        Raises:
            InputError: it cannot be used, is not private, or another server writes to it.
        """
        self._path = folder
        self._max_bytes = max_bytes
        self._file_bytes = min(max_bytes // _FILES, _MAX_FILE_BYTES)
        self._folder = _open_locked(folder)
        self._file: int | None = None
        self._name = ""
        self._size = 0  # bytes in the file
        self._waiting = 0  # bytes of lines since the last flush
        self._compressor = zlib.compressobj(wbits=31)

    def write(self, line: bytes) -> bool:
        """Add a line; return False if it is larger than a file may be.

        Raises:
            OSError: the disk is full, or the folder cannot be used; lines since the last flush are
                lost, and the next write starts a new file.
            InputError: the folder was deleted, and what is there now cannot be used.
        """
        if _largest(len(line)) > self._file_bytes:
            return False
        try:
            if self._file is not None and not self._fits(line):
                self._flush()
                if not self._fits(line):
                    self._finish()
            if self._file is None:
                self._start()
            self._append(self._compressor.compress(line))
            self._waiting += len(line)
        except BaseException:
            self._abandon()
            raise
        return True

    def flush(self) -> None:
        """Write all lines so that they can be read if the server is killed.

        Raises:
            OSError: as `write`.
        """
        try:
            if self._file is not None and self._waiting:
                self._flush()
            if self._file is not None and not os.fstat(self._file).st_nlink:
                self._abandon()  # deleted by someone else, so that nobody could read what follows
        except BaseException:
            self._abandon()
            raise

    def close(self) -> None:
        """Complete the file and release the folder.

        Raises:
            OSError: as `write`.
        """
        try:
            if self._file is not None:
                self._finish()
        finally:
            self._abandon()
            self._close_folder()

    def _fits(self, line: bytes) -> bool:
        return self._size + _largest(self._waiting + len(line)) <= self._file_bytes

    def _append(self, data: bytes) -> None:
        assert self._file is not None
        while data:
            written = os.write(self._file, data)
            self._size += written
            data = data[written:]

    def _flush(self) -> None:
        self._append(self._compressor.flush(zlib.Z_SYNC_FLUSH))
        self._waiting = 0

    def _finish(self) -> None:
        assert self._file is not None
        self._append(self._compressor.flush(zlib.Z_FINISH))
        self._waiting = 0
        os.close(self._file)
        self._file = None

    def _start(self) -> None:
        # Programs that clean temporary folders delete it.
        if self._folder < 0 or not os.fstat(self._folder).st_nlink:
            self._close_folder()
            self._folder = _open_locked(self._path)
        self._make_room()
        self._name = datetime.datetime.now(datetime.UTC).strftime(_NAME)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._file = os.open(self._name, flags, 0o600, dir_fd=self._folder)
        self._size = self._waiting = 0
        self._compressor = zlib.compressobj(wbits=31)

    def _make_room(self) -> None:
        """Delete the oldest files, so that a new one fits."""
        sizes = {}
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if LOG_FILE.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                    with contextlib.suppress(FileNotFoundError):  # moved away at this moment
                        sizes[entry.name] = entry.stat(follow_symlinks=False).st_size
        total = sum(sizes.values())
        for name in sorted(sizes):
            if total + self._file_bytes <= self._max_bytes:
                return
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self._folder)
            total -= sizes[name]

    def _abandon(self) -> None:
        """Close a file that cannot be completed; one without any line is deleted."""
        if self._file is None:
            return
        with contextlib.suppress(OSError):
            os.close(self._file)
            if not self._size:
                os.unlink(self._name, dir_fd=self._folder)
        self._file = None

    def _close_folder(self) -> None:
        if self._folder >= 0:
            os.close(self._folder)
            self._folder = -1


def _largest(size: int) -> int:
    """Return how many bytes `size` bytes take at most: data that does not compress grows."""
    return size + size // 1000 + _FRAME_BYTES


def _open_locked(path: Path) -> int:
    folder = open_private_folder(path, FOLDER_OPTION)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(folder)
        raise InputError(
            f"{FOLDER_OPTION}: expected a folder that no other server writes to, got {path}"
        ) from error
    return folder
