"""Published versions in a folder: copied to a hidden folder, synced to disk, then renamed."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from regraft_core.formats.manifest_storage import write_text
from regraft_core.formats.published_versions import GRAPH_FILE, VERSION_LABELS_FILE, parse_labels
from regraft_core.formats.version_names import version_names
from regraft_core.runtime.errors import InputError
from regraft_core.runtime.safe_files import (
    copy_file,
    lock_file,
    new_folder,
    refuse_links,
    unfinished_files,
)

_STAGING, WITHDRAWN, _RETIRED, _LOCK = ".publishing-", ".withdrawn-", ".retired-", ".lock"


class FolderStore:
    """Versions in a folder of a file system; see `serving.publishing.publish.Store`."""

    def __init__(self, base: Path) -> None:
        self._base = base

    def versions(self) -> list[int]:
        """Implement `Store.versions`."""
        if not self._base.is_dir():
            return []
        numbers = version_names(path.name for path in self._base.iterdir())
        return [n for n in numbers if (self._base / str(n) / GRAPH_FILE).is_file()]

    def path(self, version: int) -> str:
        """Implement `Store.path`."""
        return str(self._base / str(version))

    def add(
        self,
        folder: Path,
        check: Callable[[Path], None],
        confirm: Callable[[], None] = lambda: None,
    ) -> int:
        """Implement `Store.add`; the version appears with one rename."""
        self._base.mkdir(parents=True, exist_ok=True)
        with self._staging() as staged:
            _copy(folder, staged)
            check(staged)
            _sync_tree(staged)
            with self.locked():
                confirm()
                number = self._rename_to_next(staged)
        _sync(self._base)
        return number

    def withdraw(self, version: int) -> None:
        """Implement `Store.withdraw`."""
        (self._base / str(version)).rename(self._base / f"{WITHDRAWN}{version}")
        _sync(self._base)

    def remove(self, version: int) -> None:
        """Implement `Store.remove`; the version disappears with one rename, then is deleted."""
        retired = new_folder(self._base, _RETIRED)
        (self._base / str(version)).rename(retired / str(version))
        shutil.rmtree(retired)

    def labels(self) -> dict[str, int]:
        """Implement `Store.labels`."""
        path = self._base / VERSION_LABELS_FILE
        try:
            return parse_labels(path.read_text("utf-8"), str(path)) if path.is_file() else {}
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: expected an object of label to version: {error}") from error

    def write_labels(self, labels: dict[str, int]) -> None:
        """Implement `Store.write_labels`."""
        write_text(
            self._base / VERSION_LABELS_FILE, json.dumps(labels, indent=2, sort_keys=True) + "\n"
        )

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Implement `Store.locked`; the lock is released with the process at the latest.

        Who holds it deletes what killed publishers left.
        """
        if not self._base.is_dir():
            yield
            return
        with lock_file(self._base / _LOCK) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            self._delete_abandoned()
            yield

    @contextlib.contextmanager
    def _staging(self) -> Iterator[Path]:
        """Yield a hidden folder, locked while its publisher runs."""
        with self.locked():
            staged = new_folder(self._base, _STAGING)
            held = os.open(staged, os.O_RDONLY)
            fcntl.flock(held, fcntl.LOCK_EX)
        try:
            yield staged
        except BaseException:
            shutil.rmtree(staged, ignore_errors=True)
            raise
        finally:
            os.close(held)

    def _delete_abandoned(self) -> None:
        """Delete what killed publishers left; labels are only written under the lock."""
        for folder in self._base.glob(f"{_STAGING}*"):
            try:
                held = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)
            except OSError:
                continue  # a link
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue  # its publisher is running
            finally:
                os.close(held)
            shutil.rmtree(folder, ignore_errors=True)
        for folder in self._base.glob(f"{_RETIRED}*"):
            shutil.rmtree(folder, ignore_errors=True)
        for file in unfinished_files(self._base / VERSION_LABELS_FILE):
            file.unlink(missing_ok=True)

    def _rename_to_next(self, staged: Path) -> int:
        number = max(self._used_numbers(), default=0) + 1
        while True:
            try:
                staged.rename(self._base / str(number))
                return number
            except OSError:
                # Another program was faster: renaming onto a folder with files fails.
                if not (self._base / str(number)).exists():
                    raise
                number += 1

    def _used_numbers(self) -> list[int]:
        return [*version_names(p.name.removeprefix(WITHDRAWN) for p in self._base.iterdir())]


def _copy(folder: Path, staged: Path) -> None:
    """Copy files without their modes, which then follow the umask."""
    refuse_links(folder)
    mode = staged.stat().st_mode
    shutil.copytree(folder, staged, dirs_exist_ok=True, copy_function=copy_file)
    for path in (staged, *(one for one in staged.rglob("*") if one.is_dir())):
        path.chmod(mode)  # copytree copies those of folders


def _sync(path: Path) -> None:
    held = os.open(path, os.O_RDONLY)
    try:
        os.fsync(held)
    finally:
        os.close(held)


def _sync_tree(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        _sync(path)
