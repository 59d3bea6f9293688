"""The methods of all clients: `SyncClient` and, for asyncio, `AsyncClient`.

A protocol provides its requests (`ModelRequests`) and a client that sends one of them once
(`_exchange`).
"""

from __future__ import annotations

import abc
import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

from .errors import RegraftClientError, UnavailableError, unreadable
from .results import ClassScore, Metadata, Prediction, VersionStatus
from .retries import ReadinessDeadline, Retries

Result = TypeVar("Result")


@dataclass(frozen=True)
class ApiRequest(Generic[Result]):
    """A request of one protocol, and the function that parses its response."""

    call: Any
    parse: Callable[[Any], Result]

    def read(self, response: Any) -> Result:
        """Return the result that a response contains.

        Raises:
            ServerFailedError: the response does not follow the protocol.
        """
        try:
            return self.parse(response)
        except (LookupError, TypeError, ValueError) as error:
            raise unreadable(f"{type(error).__name__}: {error}") from error


class ModelRequests(Protocol):
    """The requests of one protocol for one model."""

    def predict(self, images: Sequence[bytes]) -> ApiRequest[list[Prediction]]:
        """Return the request for labels and probabilities."""

    def classify(self, images: Sequence[bytes]) -> ApiRequest[list[list[ClassScore]]]:
        """Return the request of the Classify API."""

    def features(self, images: Sequence[bytes]) -> ApiRequest[list[tuple[float, ...]]]:
        """Return the request for pooled features."""

    def status(self) -> ApiRequest[list[VersionStatus]]:
        """Return the request for the states of the versions."""

    def metadata(self) -> ApiRequest[Metadata]:
        """Return the request for the signatures."""

    def readiness(self) -> ApiRequest[None]:
        """Return the request that succeeds if a version is available.

        The status ignores labels, so the metadata is requested if there is one.
        """


class SyncClient(abc.ABC):
    """Sends requests to one model of a server. Thread-safe."""

    def __init__(self, requests: ModelRequests, retries: Retries | None) -> None:
        self._requests = requests
        self._retries = retries or Retries()

    def predict(self, images: Sequence[bytes]) -> list[Prediction]:
        """Return label, confidence and probabilities of encoded images.

        Raises:
            InvalidImageError: an image cannot be decoded; it has the predictions of the others.
        """
        return self._send(self._requests.predict(images))

    def classify(self, images: Sequence[bytes]) -> list[list[ClassScore]]:
        """Return the classes with their scores, by the Classify API."""
        return self._send(self._requests.classify(images))

    def features(self, images: Sequence[bytes]) -> list[tuple[float, ...]]:
        """Return the pooled features of encoded images."""
        return self._send(self._requests.features(images))

    def status(self) -> list[VersionStatus]:
        """Return the states of the model's versions, newest first."""
        return self._send(self._requests.status())

    def metadata(self) -> Metadata:
        """Return the served version and its signatures."""
        return self._send(self._requests.metadata())

    def wait_ready(self, deadline_s: float = 60.0) -> None:
        """Wait until a version is available; for a client with a label, that of the label.

        Raises:
            DeadlineError: no version became available within `deadline_s`.
        """
        deadline, request = ReadinessDeadline(deadline_s), self._requests.readiness()
        while True:
            try:
                return self._send_once(request)
            except RegraftClientError as error:
                time.sleep(deadline.pause_after(error))

    @abc.abstractmethod
    def close(self) -> None:
        """Close all connections."""

    @abc.abstractmethod
    def _exchange(self, call: Any) -> Any:
        """Send a call once and return its response, or raise a `RegraftClientError`."""

    def _send_once(self, request: ApiRequest[Result]) -> Result:
        return request.read(self._exchange(request.call))

    def _send(self, request: ApiRequest[Result]) -> Result:
        for pause_s in self._retries.pauses():
            try:
                return self._send_once(request)
            except self._retries.errors:
                time.sleep(pause_s)
        return self._send_once(request)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class AsyncClient(abc.ABC):
    """`SyncClient` for asyncio. Create it in a running event loop; use it with `async with`."""

    def __init__(self, requests: ModelRequests, retries: Retries | None) -> None:
        self._requests = requests
        self._retries = retries or Retries()

    async def predict(self, images: Sequence[bytes]) -> list[Prediction]:
        """Return label, confidence and probabilities; see `SyncClient.predict`."""
        return await self._send(self._requests.predict(images))

    async def classify(self, images: Sequence[bytes]) -> list[list[ClassScore]]:
        """Return the classes with their scores, by the Classify API."""
        return await self._send(self._requests.classify(images))

    async def features(self, images: Sequence[bytes]) -> list[tuple[float, ...]]:
        """Return the pooled features of encoded images."""
        return await self._send(self._requests.features(images))

    async def status(self) -> list[VersionStatus]:
        """Return the states of the model's versions, newest first."""
        return await self._send(self._requests.status())

    async def metadata(self) -> Metadata:
        """Return the served version and its signatures."""
        return await self._send(self._requests.metadata())

    async def wait_ready(self, deadline_s: float = 60.0) -> None:
        """Wait until a version is available; see `SyncClient.wait_ready`."""
        deadline, request = ReadinessDeadline(deadline_s), self._requests.readiness()
        while True:
            try:
                return await self._send_once(request)
            except RegraftClientError as error:
                await asyncio.sleep(deadline.pause_after(error))

    @abc.abstractmethod
    async def close(self) -> None:
        """Close all connections."""

    @abc.abstractmethod
    async def _exchange(self, call: Any) -> Any:
        """Send a call once and return its response, or raise a `RegraftClientError`."""

    async def _send_once(self, request: ApiRequest[Result]) -> Result:
        return request.read(await self._exchange(request.call))

    async def _send(self, request: ApiRequest[Result]) -> Result:
        for pause_s in self._retries.pauses():
            try:
                return await self._send_once(request)
            except self._retries.errors:
                await asyncio.sleep(pause_s)
        return await self._send_once(request)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()


def check_available(versions: Sequence[VersionStatus]) -> None:
    """Check that a version is available.

    Raises:
        UnavailableError: none is.
    """
    if all(version.state != "AVAILABLE" for version in versions):
        states = ", ".join(f"version {one.version} is {one.state}" for one in versions)
        raise UnavailableError("UNAVAILABLE", states or "the model has no version")


def check_metadata(response: Any) -> None:
    """Accept any response: only an available version has metadata."""
