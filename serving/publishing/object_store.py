"""Published versions in an object store (`s3://`, `gs://` and the other schemes of fsspec).

Object stores have no rename. A publisher therefore claims its number with an object that only one
publisher can create; `saved_model.pb` is written last and deleted first, and a version without it
does not exist for readers.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from regraft_core.formats.manifest_storage import digest_file
from regraft_core.formats.published_versions import GRAPH_FILE, VERSION_LABELS_FILE, parse_labels
from regraft_core.formats.version_names import version_names
from regraft_core.runtime.errors import RegraftError
from regraft_core.runtime.object_stores import open_store_uri
from regraft_core.runtime.safe_files import refuse_links
from regraft_core.runtime.step_reports import ProgressReporter

_CLAIMS, _WITHDRAWN = ".claims", ".withdrawn-"


class ObjectStore:
    """Versions below a URI; see `serving.publishing.publish.Store`."""

    def __init__(self, destination: str, name: str) -> None:
        self._uri = f"{destination.rstrip('/')}/{name}"
        self._files, self._base = open_store_uri(self._uri)

    def versions(self) -> list[int]:
        """Implement `Store.versions`."""
        return [n for n in self._folders("") if self._exists(f"{n}/{GRAPH_FILE}")]

    def path(self, version: int) -> str:
        """Implement `Store.path`."""
        return f"{self._uri}/{version}"

    def add(
        self,
        folder: Path,
        check: Callable[[Path], None],
        confirm: Callable[[], None] = lambda: None,
    ) -> int:
        """Implement `Store.add`; each object is read back before `saved_model.pb` is written.

        An interrupted upload leaves no `saved_model.pb`, and its number is not used again.
        """
        refuse_links(folder)
        check(folder)
        number = self._claim()
        try:
            return self._upload(folder, number, confirm)
        except BaseException:
            with contextlib.suppress(Exception):  # the first error is the one to report
                self.remove(number)
            raise

    def _upload(self, folder: Path, number: int, confirm: Callable[[], None]) -> int:
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        files.sort(key=lambda path: path == folder / GRAPH_FILE)
        sizes = {path: path.stat().st_size for path in files}
        progress = ProgressReporter("publish: MB uploaded", _megabytes(sum(sizes.values())))
        sent = 0
        for path in files:
            if path == folder / GRAPH_FILE:
                confirm()
            target = f"{self._base}/{number}/{path.relative_to(folder).as_posix()}"
            self._files.put_file(str(path), target, callback=_counting(progress, sent))
            sent += sizes[path]
            self._require_equal(path, target)
        self._files.invalidate_cache()
        return number

    def withdraw(self, version: int) -> None:
        """Implement `Store.withdraw`: copy, then remove."""
        source, target = f"{self._base}/{version}", f"{self._base}/{_WITHDRAWN}{version}"
        self._files.copy(f"{source}/", f"{target}/", recursive=True)
        self.remove(version)

    def remove(self, version: int) -> None:
        """Implement `Store.remove`: `saved_model.pb` first, so that no server loads the rest."""
        with contextlib.suppress(FileNotFoundError):  # an upload ended before it
            self._files.rm_file(f"{self._base}/{version}/{GRAPH_FILE}")
        self._files.rm(f"{self._base}/{version}", recursive=True)
        self._files.invalidate_cache()

    def labels(self) -> dict[str, int]:
        """Implement `Store.labels`."""
        if not self._exists(VERSION_LABELS_FILE):
            return {}
        text = self._files.cat_file(f"{self._base}/{VERSION_LABELS_FILE}").decode("utf-8")
        return parse_labels(text, f"{self._uri}/{VERSION_LABELS_FILE}")

    def write_labels(self, labels: dict[str, int]) -> None:
        """Implement `Store.write_labels`: one object, replaced as a whole."""
        text = json.dumps(labels, indent=2, sort_keys=True) + "\n"
        self._files.pipe_file(f"{self._base}/{VERSION_LABELS_FILE}", text.encode())

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Implement `Store.locked`: object stores have no locks; the last writer of labels wins."""
        yield

    def _claim(self) -> int:
        """Create the object of the next free number, which only one publisher can."""
        used = [*self._folders(""), *self._folders(_WITHDRAWN), *self._claims()]
        number = max(used, default=0) + 1
        while True:
            try:
                claim = f"{self._base}/{_CLAIMS}/{number}"
                self._files.pipe_file(claim, b"claimed\n", mode="create")
                return number
            except FileExistsError:
                number += 1

    def _claims(self) -> list[int]:
        return [*version_names(self._names(_CLAIMS))]

    def _folders(self, prefix: str) -> list[int]:
        names = (n.removeprefix(prefix) for n in self._names("") if n.startswith(prefix))
        return [*version_names(names)]

    def _names(self, folder: str) -> list[str]:
        self._files.invalidate_cache()
        try:
            found = self._files.ls(f"{self._base}/{folder}".rstrip("/"), detail=False)
        except FileNotFoundError:
            return []
        return [name.rstrip("/").rsplit("/", 1)[-1] for name in found]

    def _exists(self, name: str) -> bool:
        return bool(self._files.exists(f"{self._base}/{name}"))

    def _require_equal(self, path: Path, target: str) -> None:
        stored = hashlib.sha256(self._files.cat_file(target)).hexdigest()
        if stored != digest_file(path):
            raise RegraftError(f"{target}: expected the bytes of {path.name}, read others back")


def _counting(progress: ProgressReporter, before: int) -> Any:
    """Return a callback of fsspec that reports the bytes of a file, after those of earlier ones."""
    from fsspec.callbacks import Callback  # like all of fsspec, optional

    def report(size: int | None, value: int, **others: Any) -> None:
        progress(_megabytes(before + value))

    return Callback(hooks={"progress": report})


def _megabytes(size: int) -> int:
    return -(-size // (1 << 20))
