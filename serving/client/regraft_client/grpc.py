"""Clients by gRPC: `GrpcClient`, and `AsyncGrpcClient` with the same methods for asyncio.

Neither imports TensorFlow: the messages are made at run time, see `messages.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from regraft_client import grpc_wire
from regraft_client.errors import (
    ConnectionFailedError,
    DeadlineError,
    ServingClientError,
    answer_error,
)
from regraft_client.grpc_wire import Call, Target
from regraft_client.methods import ApiRequest, AsyncClient, SyncClient
from regraft_client.results import ClassScore, Metadata, Prediction, VersionStatus
from regraft_client.retrying import Retries

MAX_MESSAGE_BYTES = 256 << 20
# Retries are ours to bound; images and features are larger than gRPC's default of 4 MB.
_OPTIONS = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.enable_retries", 0),
)


@dataclass(frozen=True)
class Tls:
    """PEM texts: the CA that signed the server, and for mutual TLS the client's own pair."""

    ca: bytes | None = None
    key: bytes | None = None
    certificate: bytes | None = None
    server_name: str = ""


def strip_scheme(address: str) -> str:
    """Return "host:port" of an address that may begin with grpc://."""
    return address.removeprefix("grpc://").rstrip("/")


@dataclass(frozen=True)
class GrpcWire:
    """The requests of TF Serving's gRPC services for one model."""

    target: Target

    def predict(self, images: Sequence[bytes]) -> ApiRequest[list[Prediction]]:
        """As `Wire.predict`."""
        call = grpc_wire.predict_call(self.target, images)
        return ApiRequest(call, grpc_wire.parse_predictions)

    def classify(self, images: Sequence[bytes]) -> ApiRequest[list[list[ClassScore]]]:
        """As `Wire.classify`."""
        return ApiRequest(grpc_wire.classify_call(self.target, images), grpc_wire.parse_classes)

    def features(self, images: Sequence[bytes]) -> ApiRequest[list[tuple[float, ...]]]:
        """As `Wire.features`."""
        return ApiRequest(grpc_wire.features_call(self.target, images), grpc_wire.parse_features)

    def status(self) -> ApiRequest[list[VersionStatus]]:
        """As `Wire.status`."""
        return ApiRequest(grpc_wire.status_call(self.target), grpc_wire.parse_status)

    def metadata(self) -> ApiRequest[Metadata]:
        """As `Wire.metadata`."""
        return ApiRequest(grpc_wire.metadata_call(self.target), grpc_wire.parse_metadata)


class GrpcClient(SyncClient):
    """Asks one model of a server by gRPC. Thread-safe."""

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
        """Make a client; nothing is sent yet. The arguments are those of `RestClient`."""
        super().__init__(GrpcWire(Target(model, version, label)), retries)
        self._address = strip_scheme(address)
        self._channel = _Channel(grpc, self._address, tls)
        self._timeout_s = timeout_s

    def close(self) -> None:
        """Close the channel."""
        self._channel.channel.close()

    def _exchange(self, call: Call) -> Any:
        try:
            return self._channel.stub(call)(call.request, timeout=self._timeout_s)
        except grpc.RpcError as error:
            raise _client_error(self._address, error) from error


class AsyncGrpcClient(AsyncClient):
    """`GrpcClient` for asyncio; make it in a running loop, use it as `async with`."""

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
        """Make a client; see `GrpcClient`."""
        super().__init__(GrpcWire(Target(model, version, label)), retries)
        self._address = strip_scheme(address)
        self._channel = _Channel(grpc.aio, self._address, tls)
        self._timeout_s = timeout_s

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.channel.close(None)

    async def _exchange(self, call: Call) -> Any:
        try:
            return await self._channel.stub(call)(call.request, timeout=self._timeout_s)
        except grpc.aio.AioRpcError as error:
            raise _client_error(self._address, error) from error


class _Channel:
    """A channel of `grpc` or `grpc.aio`, and a stub for each method that was called."""

    def __init__(self, library: Any, target: str, tls: Tls | None) -> None:
        options: list[tuple[str, Any]] = list(_OPTIONS)
        if tls is None:
            self.channel = library.insecure_channel(target, options)
        else:
            if tls.server_name:
                options.append(("grpc.ssl_target_name_override", tls.server_name))
            credentials = grpc.ssl_channel_credentials(tls.ca, tls.key, tls.certificate)
            self.channel = library.secure_channel(target, credentials, options)
        self._stubs: dict[str, Any] = {}

    def stub(self, call: Call) -> Any:
        """Return the callable of a call's method."""
        stub = self._stubs.get(call.path)
        if stub is None:
            stub = self._stubs[call.path] = self.channel.unary_unary(
                call.path,
                request_serializer=type(call.request).SerializeToString,
                response_deserializer=call.answer.FromString,
            )
        return stub


def _client_error(address: str, error: Any) -> ServingClientError:
    code, details = error.code(), error.details() or ""
    # The channel's own UNAVAILABLE (no connection) carries no initial metadata of a server.
    if code is grpc.StatusCode.UNAVAILABLE and "connect" in details.lower():
        return ConnectionFailedError(f"cannot reach {address}: {details}")
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineError(f"DEADLINE_EXCEEDED: {details}")
    return answer_error(code.name, details)
