"""Clients by REST: `RestClient`, and `AsyncRestClient` with the same methods for asyncio."""

from __future__ import annotations

import asyncio
import http.client
import ssl
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import aiohttp

from serving.client import rest_wire
from serving.client.errors import (
    ConnectionFailedError,
    DeadlineError,
    ServingClientError,
)
from serving.client.rest_wire import Call
from serving.client.results import ClassScore, Metadata, Prediction, VersionStatus
from serving.client.retrying import NO_RETRIES, Retries, next_pause

_READY_PAUSE_S = 0.2


class RestClient:
    """Asks one model of a server by HTTP/JSON. Thread-safe; each thread keeps a connection."""

    def __init__(
        self,
        address: str,
        model: str,
        timeout_s: float = 30.0,
        *,
        version: int | None = None,
        label: str | None = None,
        retries: Retries | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Make a client; nothing is sent yet.

        Args:
            address: "host:port", "http://host:port" or "https://host:port".
            model: the model's name.
            timeout_s: for each attempt of a call.
            version: ask this version, not the newest.
            label: ask the version with this label.
            retries: of calls that end UNAVAILABLE.
            tls: for https; by default the system's certificates.
        """
        self._address = rest_wire.parse_address(address)
        self._path = self._address.prefix + rest_wire.model_path(model, version, label)
        self._timeout_s = timeout_s
        self._retries = retries or Retries()
        self._tls = tls
        self._local = threading.local()
        self._open: set[http.client.HTTPConnection] = set()
        self._lock = threading.Lock()

    def predict(self, images: Sequence[bytes]) -> list[Prediction]:
        """Return label, confidence and probabilities of encoded pictures."""
        return rest_wire.parse_predictions(self._send(rest_wire.predict_call(self._path, images)))

    def classify(self, images: Sequence[bytes]) -> list[list[ClassScore]]:
        """Return the classes with their scores, by the Classify API."""
        return rest_wire.parse_classes(self._send(rest_wire.classify_call(self._path, images)))

    def features(self, images: Sequence[bytes]) -> list[tuple[float, ...]]:
        """Return the pooled features of encoded pictures."""
        call = rest_wire.predict_call(self._path, images, rest_wire.FEATURES)
        return rest_wire.parse_features(self._send(call))

    def status(self) -> list[VersionStatus]:
        """Return the states of the model's versions, newest first."""
        return rest_wire.parse_status(self._send(Call("GET", self._path)))

    def metadata(self) -> Metadata:
        """Return the version that answers and its signatures."""
        return rest_wire.parse_metadata(self._send(Call("GET", f"{self._path}/metadata")))

    def wait_ready(self, deadline_s: float = 60.0) -> None:
        """Return once a version is available.

        Raises:
            DeadlineError: none was within `deadline_s`.
        """
        end = time.monotonic() + deadline_s
        pause = threading.Event()
        while True:
            try:
                found = rest_wire.parse_status(self._send(Call("GET", self._path), NO_RETRIES))
                if any(status.state == "AVAILABLE" for status in found):
                    return
                reason = f"its versions are {[(s.version, s.state) for s in found]}"
            except ServingClientError as error:
                reason = str(error)
            if time.monotonic() + _READY_PAUSE_S > end:
                raise DeadlineError(f"the model was not ready within {deadline_s:g} s: {reason}")
            pause.wait(_READY_PAUSE_S)

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            for connection in self._open:
                connection.close()
            self._open.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _send(self, call: Call, retries: Retries | None = None) -> Any:
        pauses = (retries or self._retries).pauses()
        while True:
            try:
                return rest_wire.parse_answer(*self._exchange(call))
            except ServingClientError as error:
                time.sleep(next_pause(pauses, error))

    def _exchange(self, call: Call) -> tuple[int, bytes]:
        fresh = getattr(self._local, "connection", None) is None
        try:
            return self._once(call)
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError) as error:
            if fresh:
                raise self._lost(error) from error
        except TimeoutError as error:
            raise DeadlineError(f"no answer within {self._timeout_s:g} s") from error
        except (OSError, http.client.HTTPException) as error:
            raise self._lost(error) from error
        # A kept connection that the server closed meanwhile says nothing about the server.
        try:
            return self._once(call)
        except TimeoutError as error:
            raise DeadlineError(f"no answer within {self._timeout_s:g} s") from error
        except (OSError, http.client.HTTPException) as error:
            raise self._lost(error) from error

    def _once(self, call: Call) -> tuple[int, bytes]:
        connection = self._connection()
        try:
            headers = {"Content-Type": "application/json"} if call.body else {}
            connection.request(call.method, call.path, call.body or None, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except BaseException:
            self._local.connection = None
            with self._lock:
                self._open.discard(connection)
            connection.close()
            raise

    def _connection(self) -> http.client.HTTPConnection:
        connection: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if connection is None:
            host, port, secure, _ = self._address
            if secure:
                connection = http.client.HTTPSConnection(
                    host, port, timeout=self._timeout_s, context=self._tls
                )
            else:
                connection = http.client.HTTPConnection(host, port, timeout=self._timeout_s)
            self._local.connection = connection
            with self._lock:
                self._open.add(connection)
        return connection

    def _lost(self, error: Exception) -> ConnectionFailedError:
        host, port, *_ = self._address
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return ConnectionFailedError(f"cannot reach {host}:{port}: {reason}")


class AsyncRestClient:
    """`RestClient` for asyncio; use it as `async with`."""

    def __init__(
        self,
        address: str,
        model: str,
        timeout_s: float = 30.0,
        *,
        version: int | None = None,
        label: str | None = None,
        retries: Retries | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Make a client; see `RestClient`."""
        where = rest_wire.parse_address(address)
        host = f"[{where.host}]" if ":" in where.host else where.host
        self._origin = f"{'https' if where.secure else 'http'}://{host}:{where.port}"
        self._path = where.prefix + rest_wire.model_path(model, version, label)
        self._timeout_s = timeout_s
        self._retries = retries or Retries()
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None

    async def predict(self, images: Sequence[bytes]) -> list[Prediction]:
        """Return label, confidence and probabilities of encoded pictures."""
        call = rest_wire.predict_call(self._path, images)
        return rest_wire.parse_predictions(await self._send(call))

    async def classify(self, images: Sequence[bytes]) -> list[list[ClassScore]]:
        """Return the classes with their scores, by the Classify API."""
        call = rest_wire.classify_call(self._path, images)
        return rest_wire.parse_classes(await self._send(call))

    async def features(self, images: Sequence[bytes]) -> list[tuple[float, ...]]:
        """Return the pooled features of encoded pictures."""
        call = rest_wire.predict_call(self._path, images, rest_wire.FEATURES)
        return rest_wire.parse_features(await self._send(call))

    async def status(self) -> list[VersionStatus]:
        """Return the states of the model's versions, newest first."""
        return rest_wire.parse_status(await self._send(Call("GET", self._path)))

    async def metadata(self) -> Metadata:
        """Return the version that answers and its signatures."""
        return rest_wire.parse_metadata(await self._send(Call("GET", f"{self._path}/metadata")))

    async def wait_ready(self, deadline_s: float = 60.0) -> None:
        """Return once a version is available; see `RestClient.wait_ready`."""
        end = time.monotonic() + deadline_s
        while True:
            try:
                value = await self._send(Call("GET", self._path), NO_RETRIES)
                if any(s.state == "AVAILABLE" for s in rest_wire.parse_status(value)):
                    return
                reason = "no version is available"
            except ServingClientError as error:
                reason = str(error)
            if time.monotonic() + _READY_PAUSE_S > end:
                raise DeadlineError(f"the model was not ready within {deadline_s:g} s: {reason}")
            await asyncio.sleep(_READY_PAUSE_S)

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def _send(self, call: Call, retries: Retries | None = None) -> Any:
        pauses = (retries or self._retries).pauses()
        while True:
            try:
                return rest_wire.parse_answer(*await self._exchange(call))
            except ServingClientError as error:
                await asyncio.sleep(next_pause(pauses, error))

    async def _exchange(self, call: Call) -> tuple[int, bytes]:
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=0, ssl=self._tls if self._tls else True)
            timeout = aiohttp.ClientTimeout(total=self._timeout_s)
            self._session = aiohttp.ClientSession(connector=connector, timeout=timeout)
        headers = {"Content-Type": "application/json"} if call.body else {}
        url = self._origin + call.path
        try:
            async with self._session.request(
                call.method, url, data=call.body or None, headers=headers
            ) as answer:
                return answer.status, await answer.read()
        except TimeoutError as error:
            raise DeadlineError(f"no answer within {self._timeout_s:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise ConnectionFailedError(f"cannot reach {self._origin}: {error}") from error
