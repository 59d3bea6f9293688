"""Loads and unloads versions so that the served ones match the folders of the configured models.

A new version is available before an old one is unloaded, and one that fails to load changes
nothing.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from regraft_core.formats.version_names import version_names
from serving.server.config import ModelConfig
from serving.server.models.catalog import Catalog
from serving.server.models.servable import Servable
from serving.server.protocol.status import Code, ServingError, failed_precondition

Load = Callable[[str, int, Path], Servable]
Log = Callable[[str], None]
DELETED = "the folder of this version is gone; it is served from memory"


class Lifecycle:
    """Keeps a catalog up to date with the folders of the configured models."""

    def __init__(
        self,
        catalog: Catalog,
        load: Load,
        log: Log,
        allow_labels_for_unavailable: bool = False,
    ) -> None:
        self._catalog = catalog
        self._load = load
        self._log = log
        self._allow_labels_for_unavailable = allow_labels_for_unavailable
        self._configs: list[ModelConfig] = []
        self._failures: dict[tuple[str, int], str] = {}
        self._busy = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def configure(self, configs: Sequence[ModelConfig]) -> None:
        """Serve exactly these models: load the new ones, unload those that are missing.

        Raises:
            ServingError: a label names a version that is not available, or no version of a new
                model can be loaded.
        """
        with self._busy:
            self._check_labels(configs)
            known = {config.name for config in self._configs}
            self._configs = list(configs)
            self._catalog.set_labels({config.name: config.labels for config in configs})
            for name in known - {config.name for config in configs}:
                for number in self._catalog.available(name):
                    self._catalog.unload(name, number)
            for config in configs:
                self._update(config)
            self._check_available([config for config in configs if config.name not in known])

    def poll(self) -> None:
        """Check the folders of all models once, and load and unload accordingly."""
        with self._busy:
            for config in self._configs:
                self._update(config)

    def waiting(self) -> list[str]:
        """Return the names of the configured models that have no available version."""
        with self._busy:
            return [c.name for c in self._configs if not self._catalog.available(c.name)]

    def watch(self, seconds: float) -> None:
        """Poll every `seconds` in a thread until `stop`; not at all for 0 or less."""
        if seconds <= 0:
            return
        self._thread = threading.Thread(
            target=self._watch, args=(seconds,), name="versions", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """End the polling, after a load that is in progress."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self, seconds: float) -> None:
        while not self._stop.wait(seconds):
            try:
                self.poll()
            except Exception as error:  # the loaded versions are served whatever happens here
                self._log(f"cannot check for versions: {type(error).__name__}: {error}")

    def _update(self, config: ModelConfig) -> None:
        name = config.name
        found = find_versions(config.base_path)
        chosen = config.policy.choose(list(found))
        available = self._catalog.available(name)
        for number in chosen:
            if number not in available and not self._stop.is_set():
                self._try_load(name, number, found[number])
        available = self._catalog.available(name)
        for number in available:
            self._catalog.note(name, number, "" if number in found else DELETED)
        if not any(number in available for number in chosen):
            return  # the available versions have no successor
        for number in set(available) - set(chosen):
            self._catalog.unload(name, number)
            self._log(f"{name} version {number} unloaded")

    def _try_load(self, name: str, number: int, path: Path) -> None:
        state = _folder_state(path)
        if self._failures.get((name, number)) == state:
            return  # only a changed folder is worth another attempt
        self._catalog.loading(name, number)
        try:
            servable = self._load(name, number, path)
        except Exception as error:
            if not isinstance(error, ServingError):
                error = ServingError(Code.INTERNAL, repr(error))
            self._failures[name, number] = state
            self._catalog.failed(name, number, error)
            self._log(f"{name} version {number} not loaded: {error}")
            return
        self._failures.pop((name, number), None)
        self._catalog.loaded(name, number, servable)
        self._log(f"{name} version {number} available")

    def _check_labels(self, configs: Sequence[ModelConfig]) -> None:
        for config in configs:
            available = self._catalog.available(config.name)
            present = self._catalog.labels(config.name)
            for label, number in config.labels.items():
                # As in TF Serving, the flag does not allow a label to move to such a version.
                allowed = self._allow_labels_for_unavailable
                if allowed and present.get(label, number) == number:
                    continue
                if number not in available:
                    raise failed_precondition(
                        f"Request to assign label to version {number} of model {config.name}, "
                        "which is not currently available for inference"
                    )

    def _check_available(self, configs: Sequence[ModelConfig]) -> None:
        causes = []
        for config in configs:
            if self._catalog.available(config.name) or not find_versions(config.base_path):
                continue
            status = self._catalog.statuses(config.name)[0]
            causes.append(f"{{name: {config.name} version: {status.version}}} due to error: "
                          f"{status.code.name}: {status.message}")  # fmt: skip
        if causes:
            raise ServingError(
                Code.UNKNOWN,
                f"{len(causes)} model(s) did not become available: {'; '.join(causes)}",
            )


def find_versions(base_path: Path) -> dict[int, Path]:
    """Return the version folders below `base_path` by number; other names are ignored."""
    try:
        entries = [entry for entry in os.scandir(base_path) if _is_folder(entry)]
    except (OSError, ValueError):  # a path with a NUL is a ValueError
        return {}
    named = version_names(entry.name for entry in entries)
    return {number: base_path / name for number, name in named.items()}


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a loop of links
        return False


def _folder_state(path: Path) -> str:
    """Return a text that changes whenever a file of the folder does."""
    lines = []
    for root, _, names in os.walk(path):
        for name in names:
            file = Path(root) / name
            try:
                stat = file.stat()
            except OSError:
                continue
            lines.append(f"{file} {stat.st_size} {stat.st_mtime_ns}")
    return "\n".join(sorted(lines))
