"""The methods that all clients have: `SyncClient` and, for asyncio, `AsyncClient`.

A protocol is a `Wire`, which knows the requests and how to read their answers, and a client that
sends one request once (`_exchange`). The public methods are here; `retrying.py` says when a call is
tried again.
"""

from __future__ import annotations

import abc
import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

from regraft_client.errors import ServerFailedError, ServingClientError
from regraft_client.results import ClassScore, Metadata, Prediction, VersionStatus
from regraft_client.retrying import Retries, Retrying, Until

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class ApiRequest(Generic[Answer]):
    """A request of some protocol, and the reader of its answer."""

    call: Any
    parse: Callable[[Any], Answer]

    def read(self, answer: Any) -> Answer:
        """Return what the answer says.

        Raises:
            ServerFailedError: it is not built as the protocol says.
        """
        try:
            return self.parse(answer)
        except (LookupError, TypeError, ValueError) as error:
            text = f"the server's answer cannot be read: {type(error).__name__}: {error}"
            raise ServerFailedError("INTERNAL", text) from error


class Wire(Protocol):
    """The requests of one protocol for one model."""

    def predict(self, images: Sequence[bytes]) -> ApiRequest[list[Prediction]]:
        """Ask for labels and probabilities."""

    def classify(self, images: Sequence[bytes]) -> ApiRequest[list[list[ClassScore]]]:
        """Ask for classes by the Classify API."""

    def features(self, images: Sequence[bytes]) -> ApiRequest[list[tuple[float, ...]]]:
        """Ask for pooled features."""

    def status(self) -> ApiRequest[list[VersionStatus]]:
        """Ask for the states of the versions."""

    def metadata(self) -> ApiRequest[Metadata]:
        """Ask for the signatures."""


class SyncClient(abc.ABC):
    """Asks one model of a server. Thread-safe."""

    def __init__(self, wire: Wire, retries: Retries | None) -> None:
        self._wire = wire
        self._retries = retries or Retries()

    def predict(self, images: Sequence[bytes]) -> list[Prediction]:
        """Return label, confidence and probabilities of encoded images."""
        return self._ask(self._wire.predict(images))

    def classify(self, images: Sequence[bytes]) -> list[list[ClassScore]]:
        """Return the classes with their scores, by the Classify API."""
        return self._ask(self._wire.classify(images))

    def features(self, images: Sequence[bytes]) -> list[tuple[float, ...]]:
        """Return the pooled features of encoded images."""
        return self._ask(self._wire.features(images))

    def status(self) -> list[VersionStatus]:
        """Return the states of the model's versions, newest first."""
        return self._ask(self._wire.status())

    def metadata(self) -> Metadata:
        """Return the version that answers and its signatures."""
        return self._ask(self._wire.metadata())

    def wait_ready(self, deadline_s: float = 60.0) -> None:
        """Return once a version is available.

        Raises:
            DeadlineError: none was within `deadline_s`.
        """
        self._ask(_available(self._wire.status()), Until(deadline_s))

    @abc.abstractmethod
    def close(self) -> None:
        """Close all connections."""

    @abc.abstractmethod
    def _exchange(self, call: Any) -> Any:
        """Send a call once and return its answer, or raise a `ServingClientError`."""

    def _ask(self, question: ApiRequest[Answer], rule: Retrying | None = None) -> Answer:
        pause_after = (rule or self._retries).patience()
        while True:
            try:
                return question.read(self._exchange(question.call))
            except ServingClientError as error:
                time.sleep(pause_after(error))

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
    """`SyncClient` for asyncio; make it in a running loop, use it as `async with`."""

    def __init__(self, wire: Wire, retries: Retries | None) -> None:
        self._wire = wire
        self._retries = retries or Retries()

    async def predict(self, images: Sequence[bytes]) -> list[Prediction]:
        """Return label, confidence and probabilities of encoded images."""
        return await self._ask(self._wire.predict(images))

    async def classify(self, images: Sequence[bytes]) -> list[list[ClassScore]]:
        """Return the classes with their scores, by the Classify API."""
        return await self._ask(self._wire.classify(images))

    async def features(self, images: Sequence[bytes]) -> list[tuple[float, ...]]:
        """Return the pooled features of encoded images."""
        return await self._ask(self._wire.features(images))

    async def status(self) -> list[VersionStatus]:
        """Return the states of the model's versions, newest first."""
        return await self._ask(self._wire.status())

    async def metadata(self) -> Metadata:
        """Return the version that answers and its signatures."""
        return await self._ask(self._wire.metadata())

    async def wait_ready(self, deadline_s: float = 60.0) -> None:
        """Return once a version is available; see `SyncClient.wait_ready`."""
        await self._ask(_available(self._wire.status()), Until(deadline_s))

    @abc.abstractmethod
    async def close(self) -> None:
        """Close all connections."""

    @abc.abstractmethod
    async def _exchange(self, call: Any) -> Any:
        """Send a call once and return its answer, or raise a `ServingClientError`."""

    async def _ask(self, question: ApiRequest[Answer], rule: Retrying | None = None) -> Answer:
        pause_after = (rule or self._retries).patience()
        while True:
            try:
                return question.read(await self._exchange(question.call))
            except ServingClientError as error:
                await asyncio.sleep(pause_after(error))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()


def _available(status: ApiRequest[list[VersionStatus]]) -> ApiRequest[None]:
    """Return the question whose answer is an error unless a version is available."""

    def parse(answer: Any) -> None:
        found = status.parse(answer)
        if all(version.state != "AVAILABLE" for version in found):
            states = [(version.version, version.state) for version in found]
            raise ServingClientError(f"its versions are {states}")

    return ApiRequest(status.call, parse)
