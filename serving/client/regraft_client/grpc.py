"""Clients by gRPC: `GrpcClient`, and `AsyncGrpcClient` with the same methods for asyncio."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import grpc

from .clients import AsyncClient, SyncClient
from .errors import ConnectionFailedError, RegraftClientError, status_error
from .grpc_wire import Call, GrpcRequests, Target
from .retries import Retries

MAX_MESSAGE_BYTES = 256 << 20
# Retries are the client's own; images and features are larger than gRPC's default of 4 MB.
_OPTIONS = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.enable_retries", 0),
)


@dataclass(frozen=True)
class Tls:
    """PEM texts: the CA that signed the server's certificate, and for mutual TLS the client's pair.

    `server_name` overrides the host name that the server's certificate is checked for.
    """

    ca: bytes | None = None
    key: bytes | None = None
    certificate: bytes | None = None
    server_name: str = ""


class GrpcClient(SyncClient):
    """Sends gRPC requests to one model of a server. Thread-safe."""

    def __init__(
        self,
        address: str,
        model: str,
        timeout_s: float = 30.0,
        *,
        version: int | None = None,
        label: str | None = None,
        retries: Retries | None = None,
        tls: Tls | None = None,
    ) -> None:
        """Create a client; nothing is sent yet.

        Args:
            address: "host:port" or "grpc://host:port".
            model: the model's name.
            timeout_s: limit of each attempt of a call, in seconds.
            version: send requests to this version (default: the latest).
            label: send requests to the version with this label.
            retries: when a call is retried.
            tls: certificates (default: no TLS).
        """
        super().__init__(GrpcRequests(Target(model, version, label)), retries)
        self._channel = _Channel(grpc, address, tls)
        self._timeout_s = timeout_s

    def close(self) -> None:
        """Close the channel."""
        self._channel.channel.close()

    def _exchange(self, call: Call) -> Any:
        try:
            return self._channel.stub(call)(call.request, timeout=self._timeout_s)
        except grpc.RpcError as error:
            raise self._channel.client_error(error) from error


class AsyncGrpcClient(AsyncClient):
    """`GrpcClient` for asyncio. Create it in a running event loop; use it with `async with`."""

    def __init__(
        self,
        address: str,
        model: str,
        timeout_s: float = 30.0,
        *,
        version: int | None = None,
        label: str | None = None,
        retries: Retries | None = None,
        tls: Tls | None = None,
    ) -> None:
        """Create a client; see `GrpcClient`."""
        super().__init__(GrpcRequests(Target(model, version, label)), retries)
        self._channel = _Channel(grpc.aio, address, tls)
        self._timeout_s = timeout_s

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.channel.close(None)

    async def _exchange(self, call: Call) -> Any:
        try:
            return await self._channel.stub(call)(call.request, timeout=self._timeout_s)
        except grpc.aio.AioRpcError as error:
            raise self._channel.client_error(error) from error


class _Channel:
    """A channel of `grpc` or `grpc.aio`, and a stub of each method called so far."""

    def __init__(self, library: Any, address: str, tls: Tls | None) -> None:
        self._address = address.removeprefix("grpc://").rstrip("/")
        options: list[tuple[str, Any]] = list(_OPTIONS)
        if tls is None:
            self.channel = library.insecure_channel(self._address, options)
        else:
            if tls.server_name:
                options.append(("grpc.ssl_target_name_override", tls.server_name))
            credentials = grpc.ssl_channel_credentials(tls.ca, tls.key, tls.certificate)
            self.channel = library.secure_channel(self._address, credentials, options)
        self._stubs: dict[str, Any] = {}

    def stub(self, call: Call) -> Any:
        """Return the callable of a call's method."""
        stub = self._stubs.get(call.path)
        if stub is None:
            stub = self._stubs[call.path] = self.channel.unary_unary(
                call.path,
                request_serializer=type(call.request).SerializeToString,
                response_deserializer=call.response_type.FromString,
            )
        return stub

    def client_error(self, error: Any) -> RegraftClientError:
        """Return the client's error for one of gRPC."""
        code, details = error.code(), error.details() or ""
        # gRPC reports its own connection failures as UNAVAILABLE, as a server does its overload.
        if code is grpc.StatusCode.UNAVAILABLE and "connect" in details.lower():
            return ConnectionFailedError(f"cannot reach {self._address}: {details}")
        return status_error(code.name, details)
