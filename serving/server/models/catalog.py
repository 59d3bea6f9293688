"""The versions of all models, their states, and how many requests use each of them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum

from serving.server.models.servable import Servable
from serving.server.protocol.status import Code, ServingError, invalid, not_found

_SHOWN = 10  # models in an error


class State(IntEnum):
    """The state of a version, with the numbers of `ModelVersionStatus.State`."""

    UNKNOWN = 0
    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


@dataclass(frozen=True)
class ModelSpec:
    """The model that a request is for, and at most one of a version and a label."""

    name: str
    version: int | None = None
    label: str | None = None


@dataclass(frozen=True)
class VersionStatus:
    """The state of one version, as GetModelStatus reports it."""

    version: int
    state: State
    code: Code = Code.OK
    message: str = ""


@dataclass(frozen=True)
class Lease:
    """A version that stays loaded until the lease is released."""

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
            ServingError: no name, an unknown label, or no such version is available.
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
            ServingError: NOT_FOUND if the model or the version has never been configured.
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
        """Return the numbers of the available versions, ascending."""
        with self._lock:
            return self._available(name)

    def serves_any(self) -> bool:
        """Return whether a version of any model is available."""
        with self._lock:
            return any(map(self._available, self._models))

    def has(self, name: str) -> bool:
        """Return whether this model has ever had a version."""
        with self._lock:
            return name in self._models

    def names(self) -> list[str]:
        """Return the names of all models that have ever had a version, sorted."""
        with self._lock:
            return sorted(self._models)

    def configured(self) -> list[str]:
        """Return the names of the models that are to be served, sorted."""
        with self._lock:
            return sorted(self._labels)

    def labeled(self, name: str, label: str) -> int:
        """Return the version of a label.

        Raises:
            ServingError: INVALID_ARGUMENT for an unknown label.
        """
        with self._lock:
            return self._labeled(name, label)

    def labels(self, name: str) -> dict[str, int]:
        """Return the labels of a model and their versions."""
        with self._lock:
            return dict(self._labels.get(name, {}))

    def set_labels(self, labels: Mapping[str, Mapping[str, int]]) -> None:
        """Replace the models to be served, and all labels, by `labels` (model, label, version)."""
        with self._lock:
            self._labels = {name: dict(of_model) for name, of_model in labels.items()}

    def loading(self, name: str, number: int) -> None:
        """Record that a version is being loaded."""
        with self._lock:
            version = self._models.setdefault(name, {})[number] = _Version()
            version.state = State.LOADING

    def loaded(self, name: str, number: int, servable: Servable) -> None:
        """Make a version available."""
        with self._lock:
            version = self._models[name][number]
            version.servable, version.state = servable, State.AVAILABLE

    def failed(self, name: str, number: int, error: ServingError) -> None:
        """Record that a version could not be loaded, and why."""
        with self._lock:
            version = self._models[name][number]
            version.state, version.error = State.END, error

    def note(self, name: str, number: int, text: str) -> None:
        """Attach a remark to an available version; it shows in the model's status."""
        with self._lock:
            self._models[name][number].note = text

    def unload(self, name: str, number: int) -> None:
        """Stop serving a version; it is closed when its last lease is released."""
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

    def _others(self, name: str) -> str:
        """Return the end of an error about an unknown model: those that are available."""
        found = sorted(other for other in self._models if self._available(other))
        if name in self._models or not found:
            return ""
        more = "" if len(found) <= _SHOWN else f" and {len(found) - _SHOWN} more"
        return f"; available models: {', '.join(found[:_SHOWN])}{more}"

    def _labeled(self, name: str, label: str) -> int:
        number = self._labels.get(name, {}).get(label)
        if number is None:
            raise invalid(f"Unrecognized servable version label: {label}")
        return number

    def _resolve(self, spec: ModelSpec) -> tuple[int, _Version]:
        if not spec.name:
            raise invalid("ModelSpec has no name specified.")
        number = spec.version
        if spec.label is not None:
            number = self._labeled(spec.name, spec.label)
        available = self._available(spec.name)
        if number is None and available:
            number = available[-1]
        if number is None or number not in available:
            request = (
                f"Latest({spec.name})" if number is None else f"Specific({spec.name}, {number})"
            )
            raise not_found(f"Servable not found for request: {request}{self._others(spec.name)}")
        return number, self._models[spec.name][number]


def _status(number: int, version: _Version) -> VersionStatus:
    if version.error is not None:
        return VersionStatus(number, version.state, version.error.code, version.error.message)
    return VersionStatus(number, version.state, Code.OK, version.note)
