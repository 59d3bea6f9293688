"""Requests without Regraft's clients: raw HTTP, and gRPC by the official stubs."""

from __future__ import annotations

import base64
import http.client
import json
import threading
import time
from collections.abc import Callable
from typing import Any

import grpc


def http_request(
    address: str,
    method: str,
    path: str,
    body: bytes | str = b"",
    headers: dict[str, str] | None = None,
) -> tuple[int, dict[str, str], bytes]:
    """Send one request; return status, headers (lower case) and body."""
    host, port = address.rsplit(":", 1)
    connection = http.client.HTTPConnection(host, int(port), timeout=60)
    try:
        connection.request(method, path, body or None, headers or {})
        response = connection.getresponse()
        found = {name.lower(): value for name, value in response.getheaders()}
        return response.status, found, response.read()
    finally:
        connection.close()


def post(address: str, path: str, document: Any) -> tuple[int, Any]:
    """Post a JSON value or a raw text; return the response's status and JSON."""
    body = document if isinstance(document, str | bytes) else json.dumps(document)
    status, headers, content = http_request(address, "POST", path, body)
    assert headers["content-type"].split(";")[0] == "application/json"
    return status, json.loads(content)


def b64(data: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(data).decode()}


class Stubs:
    """The official stubs on one channel."""

    def __init__(self, address: str) -> None:
        from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self.channel = grpc.insecure_channel(address, options)
        self.prediction = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)
        self.model = model_service_pb2_grpc.ModelServiceStub(self.channel)


def predict_request(signature: str = "", name: str = "tiny", **inputs: Any) -> Any:
    """Return a PredictRequest; inputs that are not a TensorProto are converted."""
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2

    request = predict_pb2.PredictRequest()
    request.model_spec.name = name
    request.model_spec.signature_name = signature
    for alias, value in inputs.items():
        proto = value if hasattr(value, "tensor_shape") else tf.make_tensor_proto(value)
        request.inputs[alias].CopyFrom(proto)
    return request


def failure(call: Any, request: Any) -> tuple[str, str]:
    """Return code and details of a call that fails."""
    try:
        call(request, timeout=60)
    except grpc.RpcError as error:
        return error.code().name, error.details() or ""
    raise AssertionError("expected an error, got a response")


def until(check: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for an effect of another process, up to a deadline."""
    end, pause = time.monotonic() + seconds, threading.Event()
    while not check():
        assert time.monotonic() < end, "it did not happen in time"
        pause.wait(0.05)
