"""The methods that all clients have: `SyncClient` and, for asyncio, `AsyncClient`.

A protocol is a `Wire`, which knows the requests and how to read their answers, and a client that
sends one request once (`_exchange`). Retries, waiting and the public methods are here.
"""

from __future__ import annotations

import abc
import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

from serving.client.errors import DeadlineError, ServingClientError
from serving.client.results import ClassScore, Metadata, Prediction, VersionStatus
from serving.client.retrying import NO_RETRIES, Retries, next_pause

_READY_PAUSE_S = 0.2
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Question(Generic[Answer]):
    """A request of some protocol, and the reader of its answer."""

    call: Any
    parse: Callable[[Any], Answer]


class Wire(Protocol):
    """The requests of one protocol for one model."""

    def predict(self, images: Sequence[bytes]) -> Question[list[Prediction]]:
        """Ask for labels and probabilities."""

    def classify(self, images: Sequence[bytes]) -> Question[list[list[ClassScore]]]:
        """Ask for classes by the Classify API."""

    def features(self, images: Sequence[bytes]) -> Question[list[tuple[float, ...]]]:
        """Ask for pooled features."""

    def status(self) -> Question[list[VersionStatus]]:
        """Ask for the states of the versions."""

    def metadata(self) -> Question[Metadata]:
        """Ask for the signatures."""


class SyncClient(abc.ABC):
    """Asks one model of a server. Thread-safe."""

    def __init__(self, wire: Wire, retries: Retries | None) -> None:
        self._wire = wire
        self._retries = retries or Retries()

    def predict(self, images: Sequence[bytes]) -> list[Prediction]:
        """Return label, confidence and probabilities of encoded pictures."""
        return self._ask(self._wire.predict(images))

    def classify(self, images: Sequence[bytes]) -> list[list[ClassScore]]:
        """Return the classes with their scores, by the Classify API."""
        return self._ask(self._wire.classify(images))

    def features(self, images: Sequence[bytes]) -> list[tuple[float, ...]]:
        """Return the pooled features of encoded pictures."""
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
        end = time.monotonic() + deadline_s
        pause = threading.Event()
        while True:
            try:
                reason = _not_ready(self._ask(self._wire.status(), NO_RETRIES))
            except ServingClientError as error:
                reason = str(error)
            if not reason:
                return
            _check_time(end, deadline_s, reason)
            pause.wait(_READY_PAUSE_S)

    @abc.abstractmethod
    def close(self) -> None:
        """Close all connections."""

    @abc.abstractmethod
    def _exchange(self, call: Any) -> Any:
        """Send a call once and return its answer, or raise a `ServingClientError`."""

    def _ask(self, question: Question[Answer], retries: Retries | None = None) -> Answer:
        pauses = (retries or self._retries).pauses()
        while True:
            try:
                return question.parse(self._exchange(question.call))
            except ServingClientError as error:
                time.sleep(next_pause(pauses, error))

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
        """Return label, confidence and probabilities of encoded pictures."""
        return await self._ask(self._wire.predict(images))

    async def classify(self, images: Sequence[bytes]) -> list[list[ClassScore]]:
        """Return the classes with their scores, by the Classify API."""
        return await self._ask(self._wire.classify(images))

    async def features(self, images: Sequence[bytes]) -> list[tuple[float, ...]]:
        """Return the pooled features of encoded pictures."""
        return await self._ask(self._wire.features(images))

    async def status(self) -> list[VersionStatus]:
        """Return the states of the model's versions, newest first."""
        return await self._ask(self._wire.status())

    async def metadata(self) -> Metadata:
        """Return the version that answers and its signatures."""
        return await self._ask(self._wire.metadata())

    async def wait_ready(self, deadline_s: float = 60.0) -> None:
        """Return once a version is available; see `SyncClient.wait_ready`."""
        end = time.monotonic() + deadline_s
        while True:
            try:
                reason = _not_ready(await self._ask(self._wire.status(), NO_RETRIES))
            except ServingClientError as error:
                reason = str(error)
            if not reason:
                return
            _check_time(end, deadline_s, reason)
            await asyncio.sleep(_READY_PAUSE_S)

    @abc.abstractmethod
    async def close(self) -> None:
        """Close all connections."""

    @abc.abstractmethod
    async def _exchange(self, call: Any) -> Any:
        """Send a call once and return its answer, or raise a `ServingClientError`."""

    async def _ask(self, question: Question[Answer], retries: Retries | None = None) -> Answer:
        pauses = (retries or self._retries).pauses()
        while True:
            try:
                return question.parse(await self._exchange(question.call))
            except ServingClientError as error:
                await asyncio.sleep(next_pause(pauses, error))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()


def _not_ready(found: list[VersionStatus]) -> str:
    """Return why no version answers, or nothing where one does."""
    if any(status.state == "AVAILABLE" for status in found):
        return ""
    return f"its versions are {[(status.version, status.state) for status in found]}"


def _check_time(end: float, deadline_s: float, reason: str) -> None:
    if time.monotonic() + _READY_PAUSE_S > end:
        raise DeadlineError(f"the model was not ready within {deadline_s:g} s: {reason}")
