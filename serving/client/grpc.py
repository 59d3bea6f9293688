"""Clients by gRPC: `GrpcClient`, and `AsyncGrpcClient` with the same methods for asyncio.

Neither imports TensorFlow: the messages are made at run time, see `messages.py`.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import grpc

from serving.client import grpc_wire
from serving.client.errors import (
    ConnectionFailedError,
    DeadlineError,
    ServingClientError,
    answer_error,
)
from serving.client.grpc_wire import Call, Target
from serving.client.results import ClassScore, Metadata, Prediction, VersionStatus
from serving.client.retrying import NO_RETRIES, Retries, next_pause

MAX_MESSAGE_BYTES = 256 << 20
_READY_PAUSE_S = 0.2
# Retries are ours to bound; pictures and features are larger than gRPC's default of 4 MB.
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


class GrpcClient:
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
        target, options = strip_scheme(address), _options(tls)
        self._channel = (
            grpc.secure_channel(target, _credentials(tls), options)
            if tls is not None
            else grpc.insecure_channel(target, options)
        )
        self._address = target
        self._target = Target(model, version, label)
        self._timeout_s = timeout_s
        self._retries = retries or Retries()
        self._stubs: dict[str, Any] = {}

    def predict(self, images: Sequence[bytes]) -> list[Prediction]:
        """Return label, confidence and probabilities of encoded pictures."""
        call = grpc_wire.predict_call(self._target, images)
        return grpc_wire.parse_predictions(self._send(call))

    def classify(self, images: Sequence[bytes]) -> list[list[ClassScore]]:
        """Return the classes with their scores, by the Classify API."""
        return grpc_wire.parse_classes(self._send(grpc_wire.classify_call(self._target, images)))

    def features(self, images: Sequence[bytes]) -> list[tuple[float, ...]]:
        """Return the pooled features of encoded pictures."""
        return grpc_wire.parse_features(self._send(grpc_wire.features_call(self._target, images)))

    def status(self) -> list[VersionStatus]:
        """Return the states of the model's versions, newest first."""
        return grpc_wire.parse_status(self._send(grpc_wire.status_call(self._target)))

    def metadata(self) -> Metadata:
        """Return the version that answers and its signatures."""
        return grpc_wire.parse_metadata(self._send(grpc_wire.metadata_call(self._target)))

    def wait_ready(self, deadline_s: float = 60.0) -> None:
        """Return once a version is available.

        Raises:
            DeadlineError: none was within `deadline_s`.
        """
        end = time.monotonic() + deadline_s
        pause = threading.Event()
        while True:
            try:
                answer = self._send(grpc_wire.status_call(self._target), NO_RETRIES)
                if any(s.state == "AVAILABLE" for s in grpc_wire.parse_status(answer)):
                    return
                reason = "no version is available"
            except ServingClientError as error:
                reason = str(error)
            if time.monotonic() + _READY_PAUSE_S > end:
                raise DeadlineError(f"the model was not ready within {deadline_s:g} s: {reason}")
            pause.wait(_READY_PAUSE_S)

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

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
        stub = _stub(self._channel, self._stubs, call)
        while True:
            try:
                return stub(call.request, timeout=self._timeout_s)
            except grpc.RpcError as error:
                pause = next_pause(pauses, _client_error(self._address, error))
                time.sleep(pause)


class AsyncGrpcClient:
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
        target, options = strip_scheme(address), _options(tls)
        self._channel = (
            grpc.aio.secure_channel(target, _credentials(tls), options)
            if tls is not None
            else grpc.aio.insecure_channel(target, options)
        )
        self._address = target
        self._target = Target(model, version, label)
        self._timeout_s = timeout_s
        self._retries = retries or Retries()
        self._stubs: dict[str, Any] = {}

    async def predict(self, images: Sequence[bytes]) -> list[Prediction]:
        """Return label, confidence and probabilities of encoded pictures."""
        call = grpc_wire.predict_call(self._target, images)
        return grpc_wire.parse_predictions(await self._send(call))

    async def classify(self, images: Sequence[bytes]) -> list[list[ClassScore]]:
        """Return the classes with their scores, by the Classify API."""
        call = grpc_wire.classify_call(self._target, images)
        return grpc_wire.parse_classes(await self._send(call))

    async def features(self, images: Sequence[bytes]) -> list[tuple[float, ...]]:
        """Return the pooled features of encoded pictures."""
        call = grpc_wire.features_call(self._target, images)
        return grpc_wire.parse_features(await self._send(call))

    async def status(self) -> list[VersionStatus]:
        """Return the states of the model's versions, newest first."""
        return grpc_wire.parse_status(await self._send(grpc_wire.status_call(self._target)))

    async def metadata(self) -> Metadata:
        """Return the version that answers and its signatures."""
        return grpc_wire.parse_metadata(await self._send(grpc_wire.metadata_call(self._target)))

    async def wait_ready(self, deadline_s: float = 60.0) -> None:
        """Return once a version is available; see `GrpcClient.wait_ready`."""
        end = time.monotonic() + deadline_s
        while True:
            try:
                answer = await self._send(grpc_wire.status_call(self._target), NO_RETRIES)
                if any(s.state == "AVAILABLE" for s in grpc_wire.parse_status(answer)):
                    return
                reason = "no version is available"
            except ServingClientError as error:
                reason = str(error)
            if time.monotonic() + _READY_PAUSE_S > end:
                raise DeadlineError(f"the model was not ready within {deadline_s:g} s: {reason}")
            await asyncio.sleep(_READY_PAUSE_S)

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close(None)

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
        stub = _stub(self._channel, self._stubs, call)
        while True:
            try:
                return await stub(call.request, timeout=self._timeout_s)
            except grpc.aio.AioRpcError as error:
                pause = next_pause(pauses, _client_error(self._address, error))
                await asyncio.sleep(pause)


def _stub(channel: Any, stubs: dict[str, Any], call: Call) -> Any:
    stub = stubs.get(call.path)
    if stub is None:
        stub = stubs[call.path] = channel.unary_unary(
            call.path,
            request_serializer=type(call.request).SerializeToString,
            response_deserializer=call.answer.FromString,
        )
    return stub


def _options(tls: Tls | None) -> list[tuple[str, Any]]:
    options: list[tuple[str, Any]] = list(_OPTIONS)
    if tls is not None and tls.server_name:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
    return options


def _credentials(tls: Tls) -> Any:
    return grpc.ssl_channel_credentials(tls.ca, tls.key, tls.certificate)


def _client_error(address: str, error: Any) -> ServingClientError:
    code, details = error.code(), error.details() or ""
    # The channel's own UNAVAILABLE (no connection) carries no initial metadata of a server.
    if code is grpc.StatusCode.UNAVAILABLE and "connect" in details.lower():
        return ConnectionFailedError(f"cannot reach {address}: {details}")
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineError(f"DEADLINE_EXCEEDED: {details}")
    return answer_error(code.name, details)
