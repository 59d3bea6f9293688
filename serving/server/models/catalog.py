"""Which versions of which models are there, in what state, and who is using them right now."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum

from serving.server.models.servable import Servable
from serving.server.protocol.status import Code, ServingError, invalid, not_found


class State(IntEnum):
    """The life of a version, with the numbers of `ModelVersionStatus.State`."""

    UNKNOWN = 0
    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


@dataclass(frozen=True)
class ModelSpec:
    """What a request asks for: a model, and at most one of a version and a label."""

    name: str
    version: int | None = None
    label: str | None = None


@dataclass(frozen=True)
class VersionStatus:
    """The state of one version, as GetModelStatus tells it."""

    version: int
    state: State
    code: Code = Code.OK
    message: str = ""


@dataclass(frozen=True)
class Lease:
    """A version that stays loaded as long as the lease is held."""

    name: str
    version: int
    servable: Servable


class _Version:
    def __init__(self) -> None:
        self.state = State.START
        self.error: ServingError | None = None
        self.note = ""
        self.servable: Servable | None = None
        self.in_use = 0


class Catalog:
    """All versions of all models. Thread-safe; a version in use is closed by its last user."""

    def __init__(self) -> None:
        self._models: dict[str, dict[int, _Version]] = {}
        self._labels: dict[str, dict[str, int]] = {}
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def lease(self, spec: ModelSpec) -> Iterator[Lease]:
        """Resolve `spec` to an available version and hold it for the block.

        Raises:
            ServingError: no name, an unknown label, or nothing available that fits.
        """
        with self._lock:
            number, version = self._resolve(spec)
            version.in_use += 1
            servable = version.servable
        assert servable is not None
        try:
            yield Lease(spec.name, number, servable)
        finally:
            self._release(version)

    def statuses(self, name: str, version: int | None = None) -> list[VersionStatus]:
        """Return the states of a model's versions, newest first.

        Raises:
            ServingError: NOT_FOUND, if the model or the version was never seen.
        """
        with self._lock:
            versions = dict(self._models.get(name, {}))
            if version is not None:
                if version not in versions:
                    raise not_found(f"Could not find version {version} of model {name}")
                versions = {version: versions[version]}
            if not versions:
                raise not_found(f"Could not find any versions of model {name}")
            return [_status(number, versions[number]) for number in sorted(versions, reverse=True)]

    def available(self, name: str) -> list[int]:
        """Return the numbers of the versions that answer, in ascending order."""
        with self._lock:
            return self._available(name)

    def has(self, name: str) -> bool:
        """Tell whether a version of this model was ever seen."""
        with self._lock:
            return name in self._models

    def names(self) -> list[str]:
        """Return the names of all models that were ever seen, in order."""
        with self._lock:
            return sorted(self._models)

    def labels(self, name: str) -> dict[str, int]:
        """Return the labels of a model and the versions they stand for."""
        with self._lock:
            return dict(self._labels.get(name, {}))

    def set_labels(self, labels: Mapping[str, Mapping[str, int]]) -> None:
        """Replace all labels by `labels` (model, label, version)."""
        with self._lock:
            self._labels = {name: dict(of_model) for name, of_model in labels.items()}

    def loading(self, name: str, number: int) -> None:
        """Note that a version is being loaded."""
        with self._lock:
            version = self._models.setdefault(name, {})[number] = _Version()
            version.state = State.LOADING

    def loaded(self, name: str, number: int, servable: Servable) -> None:
        """Let a version answer from now on."""
        with self._lock:
            version = self._models[name][number]
            version.servable, version.state = servable, State.AVAILABLE

    def failed(self, name: str, number: int, error: ServingError) -> None:
        """Note that a version could not be loaded, and why."""
        with self._lock:
            version = self._models[name][number]
            version.state, version.error = State.END, error

    def note(self, name: str, number: int, text: str) -> None:
        """Attach a remark to an available version; it shows in the model's status."""
        with self._lock:
            self._models[name][number].note = text

    def unload(self, name: str, number: int) -> None:
        """Stop giving the version out; it is closed once nobody uses it."""
        with self._lock:
            version = self._models[name][number]
            version.state, version.note = State.UNLOADING, ""
            closing = self._closable(version)
        if closing is not None:
            closing.close()

    def _release(self, version: _Version) -> None:
        with self._lock:
            version.in_use -= 1
            closing = self._closable(version)
        if closing is not None:
            closing.close()

    @staticmethod
    def _closable(version: _Version) -> Servable | None:
        if version.state is not State.UNLOADING or version.in_use:
            return None
        servable, version.servable, version.state = version.servable, None, State.END
        return servable

    def _available(self, name: str) -> list[int]:
        versions = self._models.get(name, {})
        return sorted(n for n, v in versions.items() if v.state is State.AVAILABLE)

    def _resolve(self, spec: ModelSpec) -> tuple[int, _Version]:
        if not spec.name:
            raise invalid("ModelSpec has no name specified.")
        wanted = spec.version
        if spec.label is not None:
            wanted = self._labels.get(spec.name, {}).get(spec.label)
            if wanted is None:
                raise invalid(f"Unrecognized servable version label: {spec.label}")
        available = self._available(spec.name)
        if wanted is None and available:
            wanted = available[-1]
        if wanted is None or wanted not in available:
            request = (
                f"Latest({spec.name})" if wanted is None else f"Specific({spec.name}, {wanted})"
            )
            raise not_found(f"Servable not found for request: {request}")
        return wanted, self._models[spec.name][wanted]


def _status(number: int, version: _Version) -> VersionStatus:
    if version.error is not None:
        return VersionStatus(number, version.state, version.error.code, version.error.message)
    return VersionStatus(number, version.state, Code.OK, version.note)
