"""Clients by REST: `RestClient`, and `AsyncRestClient` with the same methods for asyncio."""

from __future__ import annotations

import http.client
import ssl
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from regraft_client import rest_wire
from regraft_client.errors import ConnectionFailedError, DeadlineError
from regraft_client.methods import ApiRequest, AsyncClient, SyncClient
from regraft_client.rest_wire import Call
from regraft_client.results import ClassScore, Metadata, Prediction, VersionStatus
from regraft_client.retrying import Retries


@dataclass(frozen=True)
class RestWire:
    """The requests of TF Serving's REST API for one model, whose path is given."""

    path: str

    def predict(self, images: Sequence[bytes]) -> ApiRequest[list[Prediction]]:
        """As `Wire.predict`."""
        return ApiRequest(rest_wire.predict_call(self.path, images), rest_wire.parse_predictions)

    def classify(self, images: Sequence[bytes]) -> ApiRequest[list[list[ClassScore]]]:
        """As `Wire.classify`."""
        return ApiRequest(rest_wire.classify_call(self.path, images), rest_wire.parse_classes)

    def features(self, images: Sequence[bytes]) -> ApiRequest[list[tuple[float, ...]]]:
        """As `Wire.features`."""
        call = rest_wire.predict_call(self.path, images, rest_wire.FEATURES)
        return ApiRequest(call, rest_wire.parse_features)

    def status(self) -> ApiRequest[list[VersionStatus]]:
        """As `Wire.status`."""
        return ApiRequest(Call("GET", self.path), rest_wire.parse_status)

    def metadata(self) -> ApiRequest[Metadata]:
        """As `Wire.metadata`."""
        return ApiRequest(Call("GET", f"{self.path}/metadata"), rest_wire.parse_metadata)


class RestClient(SyncClient):
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
        path = self._address.prefix + rest_wire.model_path(model, version, label)
        super().__init__(RestWire(path), retries)
        self._timeout_s = timeout_s
        self._tls = tls
        self._local = threading.local()
        self._open: set[http.client.HTTPConnection] = set()
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            for connection in self._open:
                connection.close()
            self._open.clear()

    def _exchange(self, call: Call) -> Any:
        return rest_wire.parse_answer(*self._reached(call))

    def _reached(self, call: Call) -> tuple[int, bytes]:
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


class AsyncRestClient(AsyncClient):
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
        path = where.prefix + rest_wire.model_path(model, version, label)
        super().__init__(RestWire(path), retries)
        self._timeout_s = timeout_s
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _exchange(self, call: Call) -> Any:
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
                status, body = answer.status, await answer.read()
        except TimeoutError as error:
            raise DeadlineError(f"no answer within {self._timeout_s:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise ConnectionFailedError(f"cannot reach {self._origin}: {error}") from error
        return rest_wire.parse_answer(status, body)
