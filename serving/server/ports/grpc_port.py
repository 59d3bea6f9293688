"""The gRPC port: TF Serving's two services, health and reflection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection
from tensorflow_serving.apis import (
    model_service_pb2_grpc,
    prediction_service_pb2_grpc,
)

from serving.server.config import TlsConfig
from serving.server.protocol.status import Code, ServingError
from serving.server.requests import api_methods
from serving.server.server_state import ServerState

Reload = Callable[[Any], Any]
PREDICTION = "tensorflow.serving.PredictionService"
MODEL = "tensorflow.serving.ModelService"
_CODES = {code.value[0]: code for code in grpc.StatusCode}


async def _respond(
    state: ServerState, context: Any, model: str, api: str, work: Callable[[], Any]
) -> Any:
    """Run `work` in a worker until the client's deadline; abort the call with its error, if any."""
    left = context.time_remaining()
    deadline_s = left if left is not None and left < 1e9 else None
    try:
        return await state.measured(model, api, "GRPC", lambda: state.workers.run(work, deadline_s))
    except ServingError as error:
        await context.abort(_CODES[int(error.code)], error.message)


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """`tensorflow.serving.PredictionService`."""

    def __init__(self, state: ServerState) -> None:
        self._state = state

    async def Predict(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Run any signature on tensors."""
        return await self._call(
            request.model_spec, context, "Predict", api_methods.predict, request
        )

    async def Classify(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Run a classification on examples."""
        return await self._call(
            request.model_spec, context, "Classify", api_methods.classify, request
        )

    async def Regress(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Run a regression on examples."""
        return await self._call(
            request.model_spec, context, "Regress", api_methods.regress, request
        )

    async def MultiInference(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Run several classifications and regressions on the same examples."""
        spec = request.tasks[0].model_spec if request.tasks else None
        return await self._call(
            spec, context, "MultiInference", api_methods.multi_inference, request
        )

    async def GetModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Return the signatures of a model."""
        return await self._call(
            request.model_spec, context, "GetModelMetadata", api_methods.model_metadata, request
        )

    async def _call(
        self, spec: Any, context: Any, api: str, method: Callable[..., Any], request: Any
    ) -> Any:
        state = self._state
        name = spec.name if spec is not None else ""
        return await _respond(state, context, name, api, lambda: method(state.catalog, request))


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """`tensorflow.serving.ModelService`."""

    def __init__(self, state: ServerState, reload: Reload) -> None:
        self._state = state
        self._reload = reload

    async def GetModelStatus(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Return the states of a model's versions."""
        state = self._state
        return await _respond(
            state,
            context,
            request.model_spec.name,
            "GetModelStatus",
            lambda: api_methods.model_status(state.catalog, request),
        )

    async def HandleReloadConfigRequest(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Serve exactly the models of the request's configuration."""
        return await _respond(
            self._state, context, "", "HandleReloadConfigRequest", lambda: self._reload(request)
        )


def make_server(
    state: ServerState, reload: Reload, max_bytes: int, max_requests: int = 0
) -> tuple[Any, HealthServicer]:
    """Return a gRPC server with all services and its health servicer; it is not bound yet.

    More than `max_requests` at the same time are RESOURCE_EXHAUSTED, unless it is 0.
    """
    server = grpc.aio.server(
        maximum_concurrent_rpcs=max_requests or None,
        options=[
            ("grpc.max_receive_message_length", max_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
        ],
    )
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        PredictionService(state), server
    )
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(state, reload), server)
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
