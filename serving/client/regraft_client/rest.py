"""Clients by REST: `RestClient`, and `AsyncRestClient` with the same methods for asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from . import rest_wire
from .clients import AsyncClient, SyncClient
from .errors import ConnectionFailedError, DeadlineError, unreadable
from .rest_wire import Call, RestRequests
from .retries import Retries

MAX_CONNECTIONS = 64
MAX_RESPONSE_BYTES = 256 << 20
_CHUNK_BYTES = 1 << 16


class RestClient(SyncClient):
    """Sends HTTP/JSON requests to one model of a server. Thread-safe; connections are kept."""

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
        """Create a client; nothing is sent yet.

        Args:
            address: "host:port", "http://host:port" or "https://host:port".
            model: the model's name.
            timeout_s: limit of each attempt of a call, in seconds.
            version: send requests to this version (default: the latest).
            label: send requests to the version with this label.
            retries: when a call is retried.
            tls: for https (default: the system's certificates).

        Raises:
            InvalidInputError: the address is malformed, or both version and label are given.
        """
        origin, prefix = rest_wire.parse_address(address)
        path = prefix + rest_wire.model_path(model, version, label)
        super().__init__(RestRequests(path, label is not None), retries)
        self._transport = _Transport(origin, timeout_s, tls)

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()

    def _exchange(self, call: Call) -> Any:
        return self._transport.exchange(call)


class AsyncRestClient(AsyncClient):
    """`RestClient` for asyncio; use it with `async with`.

    Requests are sent by up to `MAX_CONNECTIONS` threads, so that requests is the only library
    needed. A cancelled request is abandoned: its thread ends with the response or the timeout.
    """

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
        """Create a client; see `RestClient`."""
        origin, prefix = rest_wire.parse_address(address)
        path = prefix + rest_wire.model_path(model, version, label)
        super().__init__(RestRequests(path, label is not None), retries)
        self._transport = _Transport(origin, timeout_s, tls)
        self._threads = ThreadPoolExecutor(MAX_CONNECTIONS, "regraft-rest")

    async def close(self) -> None:
        """Close all connections."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._transport.close()

    async def _exchange(self, call: Call) -> Any:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._transport.exchange, call)


class _Transport:
    """Sends single requests over a pool of kept connections. Thread-safe.

    The adapter is used without a `requests.Session`, which is not thread-safe and adds proxies,
    cookies and redirects, none of which an API server needs.
    """

    def __init__(self, origin: str, timeout_s: float, tls: ssl.SSLContext | None) -> None:
        if tls is None and origin.startswith("https:"):
            tls = ssl.create_default_context()
        self._origin = origin
        self._timeout_s = timeout_s
        self._verify = tls is None or tls.verify_mode is not ssl.CERT_NONE
        self._adapter = _Adapter(tls)

    def exchange(self, call: Call) -> Any:
        """Send a call once; return the JSON value of the response."""
        headers = {"Content-Type": "application/json"} if call.body else {}
        request = requests.Request(
            call.method, self._origin + call.path, headers=headers, data=call.body or None
        ).prepare()
        start = time.monotonic()
        try:
            response = self._adapter.send(
                request, stream=True, timeout=self._timeout_s, verify=self._verify
            )
            with contextlib.closing(response):
                body = self._read(response, start + self._timeout_s)
        except requests.RequestException as error:
            # A timeout while the body is read is raised as a connection error.
            if isinstance(error, requests.Timeout) or time.monotonic() - start >= self._timeout_s:
                raise DeadlineError(f"no response within {self._timeout_s:g} s") from error
            raise ConnectionFailedError(f"cannot reach {self._origin}: {_cause(error)}") from error
        return rest_wire.parse_response(response.status_code, body)

    def _read(self, response: requests.Response, end: float) -> bytes:
        body = bytearray()
        for chunk in response.iter_content(_CHUNK_BYTES):
            body += chunk
            if len(body) > MAX_RESPONSE_BYTES:
                raise unreadable(f"it is larger than {MAX_RESPONSE_BYTES} bytes")
            if time.monotonic() > end:
                raise DeadlineError(f"no response within {self._timeout_s:g} s")
        return bytes(body)

    def close(self) -> None:
        """Close all connections."""
        self._adapter.close()


class _Adapter(HTTPAdapter):
    """Uses an SSL context as it is: requests would add its own list of authorities to it."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self._context = context
        super().__init__(pool_connections=1, pool_maxsize=MAX_CONNECTIONS)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Create the pool with the context."""
        super().init_poolmanager(*args, ssl_context=self._context, **kwargs)

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """Leave the verification to the context."""


def _cause(error: BaseException) -> str:
    """Return the text of the first error behind those of the libraries above it."""
    while behind := error.__cause__ or error.__context__:
        error = behind
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
