"""The gRPC port: TF Serving's two services, health and reflection."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_service_pb2,
    predict_pb2,
    prediction_service_pb2,
    regression_pb2,
)

from serving.server.config import TlsConfig
from serving.server.memory import HeldBody
from serving.server.models.catalog import Catalog
from serving.server.protocol.status import Code, ServingError, invalid
from serving.server.requests import api_methods
from serving.server.server_state import RequestLabels, ServerState

# The modules of the services are also what reflection describes them by.
PREDICTION = prediction_service_pb2.DESCRIPTOR.services_by_name["PredictionService"].full_name
MODEL = model_service_pb2.DESCRIPTOR.services_by_name["ModelService"].full_name
Reload = Callable[[Any], Any]
_CODES = {code.value[0]: code for code in grpc.StatusCode}
_MAX_DETAILS = 2000  # longer ones exceed the size of headers that clients accept
_REQUEST_TYPES: dict[str, dict[str, Any]] = {
    PREDICTION: {
        "Predict": predict_pb2.PredictRequest,
        "Classify": classification_pb2.ClassificationRequest,
        "Regress": regression_pb2.RegressionRequest,
        "MultiInference": inference_pb2.MultiInferenceRequest,
        "GetModelMetadata": get_model_metadata_pb2.GetModelMetadataRequest,
    },
    MODEL: {
        "GetModelStatus": get_model_status_pb2.GetModelStatusRequest,
        "HandleReloadConfigRequest": model_management_pb2.ReloadConfigRequest,
    },
}
_CALLS: dict[str, Callable[[Catalog, Any], Any]] = {
    "Predict": api_methods.predict,
    "Classify": api_methods.classify,
    "Regress": api_methods.regress,
    "MultiInference": api_methods.multi_inference,
    "GetModelMetadata": api_methods.model_metadata,
    "GetModelStatus": api_methods.model_status,
}


class _Method:
    """One method on serialized messages: they are parsed and written in a worker."""

    def __init__(
        self, state: ServerState, name: str, request_type: Any, call: Callable[[Any], Any]
    ) -> None:
        self._state = state
        self._name = name
        self._request_type = request_type
        self._call = call

    async def respond(self, received: bytes, context: Any) -> bytes:
        """Return the serialized response, or abort the call with its error."""
        left = context.time_remaining()
        deadline_s = left if left is not None and left < 1e9 else None
        labels = RequestLabels(self._name, "GRPC")
        try:
            return await self._state.measured(
                labels, lambda: self._run(received, labels, deadline_s)
            )
        except ServingError as error:
            details = error.message.encode("utf-8", "replace").decode()[:_MAX_DETAILS]
            await context.abort(_CODES[int(error.code)], details)
            raise  # abort has raised

    async def _run(self, received: bytes, labels: RequestLabels, deadline_s: float | None) -> bytes:
        held = HeldBody(self._state.bodies)
        held.grow(2 * len(received))  # the message and its parsed form

        def work() -> bytes:
            try:
                request = self._request_type.FromString(received)
            except DecodeError:
                name = self._request_type.DESCRIPTOR.name
                raise invalid(f"the message cannot be parsed as {name}") from None
            labels.model = _model_name(request)
            serialized: bytes = self._call(request).SerializeToString()
            return serialized

        return await self._state.workers.run(work, deadline_s, held.release)


def _model_name(request: Any) -> str:
    """Return the name of the model that a request is for, "" if it has none."""
    fields = request.DESCRIPTOR.fields_by_name
    if "tasks" in fields:
        return request.tasks[0].model_spec.name if request.tasks else ""
    return str(request.model_spec.name) if "model_spec" in fields else ""


class _TolerantParsing(grpc.aio.ServerInterceptor):
    """Reads malformed messages of gRPC's own services as empty ones, which they respond to."""

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Return the handler with a tolerant deserializer."""
        handler = await continuation(handler_call_details)
        if handler is None or handler.request_deserializer is None:
            return handler
        parse = handler.request_deserializer

        def tolerant(received: bytes) -> Any:
            try:
                return parse(received)
            except DecodeError:
                return parse(b"")

        return handler._replace(request_deserializer=tolerant)


def make_server(
    state: ServerState, reload: Reload, max_bytes: int, max_requests: int = 0
) -> tuple[Any, HealthServicer]:
    """Return a gRPC server with all services and its health servicer; it is not bound yet.

    More than `max_requests` at the same time are RESOURCE_EXHAUSTED, unless it is 0.
    """
    server = grpc.aio.server(
        interceptors=[_TolerantParsing()],
        maximum_concurrent_rpcs=max_requests or None,
        options=[
            ("grpc.max_receive_message_length", max_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
        ],
    )
    calls: dict[str, Callable[[Any], Any]]
    calls = {name: functools.partial(call, state.catalog) for name, call in _CALLS.items()}
    calls["HandleReloadConfigRequest"] = reload
    server.add_generic_rpc_handlers(
        [
            grpc.method_handlers_generic_handler(
                service,
                {
                    name: grpc.unary_unary_rpc_method_handler(
                        _Method(state, name, request_type, calls[name]).respond
                    )
                    for name, request_type in request_types.items()
                },
            )
            for service, request_types in _REQUEST_TYPES.items()
        ]
    )
    health_servicer = HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    reflection.enable_server_reflection(
        (PREDICTION, MODEL, health.SERVICE_NAME, reflection.SERVICE_NAME), server
    )
    return server, health_servicer


async def set_health(health_servicer: HealthServicer, serving: bool) -> None:
    """Set the health of the server and of both services."""
    status = health_pb2.HealthCheckResponse
    value = status.SERVING if serving else status.NOT_SERVING
    for name in ("", PREDICTION, MODEL):
        await health_servicer.set(name, value)


def bind(server: Any, host: str, port: int, tls: TlsConfig | None) -> int:
    """Bind the server; return the port, which is a free one if `port` is 0.

    Raises:
        ServingError: UNAVAILABLE if the port is in use or the PEM texts are invalid.
    """
    name = f"[{host}]" if ":" in host else host
    address = f"{name}:{port}"
    try:
        if tls is None:
            bound = server.add_insecure_port(address)
        else:
            credentials = grpc.ssl_server_credentials(
                [(tls.server_key, tls.server_cert)],
                root_certificates=tls.custom_ca or None,
                require_client_auth=tls.client_verify,
            )
            bound = server.add_secure_port(address, credentials)
    except (RuntimeError, ValueError) as error:
        raise ServingError(Code.UNAVAILABLE, f"cannot listen on {address}: {error}") from error
    if not bound:
        raise ServingError(Code.UNAVAILABLE, f"cannot listen on {address}")
    return int(bound)
