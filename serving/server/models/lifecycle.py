"""Which versions should be served, by the folders that are there; loads the new, unloads the old.

A new version answers before an old one goes, and one that fails to load takes nothing away.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from serving.server.config import ModelConfig
from serving.server.models.catalog import Catalog
from serving.server.models.servable import Servable
from serving.server.protocol.status import Code, ServingError, failed_precondition

Load = Callable[[str, int, Path], Servable]
Say = Callable[[str], None]
GONE = "the folder of this version is gone; it is served from memory"


class Lifecycle:
    """Keeps a catalog in step with the folders of the configured models."""

    def __init__(
        self,
        catalog: Catalog,
        load: Load,
        say: Say,
        allow_labels_for_unavailable: bool = False,
    ) -> None:
        self._catalog = catalog
        self._load = load
        self._say = say
        self._any_label = allow_labels_for_unavailable
        self._configs: list[ModelConfig] = []
        self._failures: dict[tuple[str, int], str] = {}
        self._busy = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def configure(self, configs: Sequence[ModelConfig]) -> None:
        """Serve exactly these models: load what is new, unload what is left out.

        Raises:
            ServingError: a label stands on a version that is not available, or a new model has
                no version that loads.
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
                self._follow(config)
            new = [config for config in configs if config.name not in known]
            self._check_available(new)

    def poll(self) -> None:
        """Look once at all folders and follow them."""
        with self._busy:
            for config in self._configs:
                self._follow(config)

    def waiting(self) -> list[str]:
        """Return the names of the configured models that have no version that answers."""
        with self._busy:
            return [c.name for c in self._configs if not self._catalog.available(c.name)]

    def watch(self, seconds: float) -> None:
        """Poll every `seconds` from a thread of its own until `stop`; not at all for 0 or less."""
        if seconds <= 0:
            return
        self._thread = threading.Thread(
            target=self._watch, args=(seconds,), name="versions", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """End the polling; a load that runs ends first."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self, seconds: float) -> None:
        while not self._stop.wait(seconds):
            try:
                self.poll()
            except Exception as error:  # whatever it was, the served versions serve on
                self._say(f"cannot look for versions: {type(error).__name__}: {error}")

    def _follow(self, config: ModelConfig) -> None:
        name = config.name
        found = find_versions(config.base_path)
        wanted = config.policy.choose(list(found))
        available = self._catalog.available(name)
        for number in wanted:
            if number not in available and not self._stop.is_set():
                self._try_load(name, number, found[number])
        now = self._catalog.available(name)
        for number in now:
            self._catalog.note(name, number, "" if number in found else GONE)
        if not any(number in now for number in wanted):
            return  # nothing to take over from the versions that answer
        for number in set(now) - set(wanted):
            self._catalog.unload(name, number)
            self._say(f"{name} version {number} unloaded")

    def _try_load(self, name: str, number: int, path: Path) -> None:
        print_of_folder = _folder_print(path)
        if self._failures.get((name, number)) == print_of_folder:
            return  # it failed as it is; only a changed folder is worth another try
        self._catalog.loading(name, number)
        try:
            servable = self._load(name, number, path)
        except ServingError as error:
            self._failures[name, number] = print_of_folder
            self._catalog.failed(name, number, error)
            self._say(f"{name} version {number} not loaded: {error}")
            return
        except Exception as error:
            self._failures[name, number] = print_of_folder
            self._catalog.failed(name, number, ServingError(Code.INTERNAL, repr(error)))
            self._say(f"{name} version {number} not loaded: {error!r}")
            return
        self._failures.pop((name, number), None)
        self._catalog.loaded(name, number, servable)
        self._say(f"{name} version {number} available")

    def _check_labels(self, configs: Sequence[ModelConfig]) -> None:
        for config in configs:
            available = self._catalog.available(config.name)
            present = self._catalog.labels(config.name)
            for label, number in config.labels.items():
                # With the flag, as in TF Serving, only a label that would not move is let through.
                if self._any_label and present.get(label, number) == number:
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
        entries = [entry for entry in os.scandir(base_path) if entry.is_dir()]
    except OSError:
        return {}
    named = sorted((entry.name for entry in entries if _is_number(entry.name)), key=len)
    found: dict[int, Path] = {}
    for name in named:
        found.setdefault(int(name), base_path / name)
    return found


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit() and int(name) < 1 << 63


def _folder_print(path: Path) -> str:
    """Return a short text that changes when a file of the folder does."""
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
