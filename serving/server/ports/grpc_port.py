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
from serving.server.core import Core
from serving.server.protocol.status import Code, ServingError
from serving.server.requests import service

Reload = Callable[[Any], Any]
PREDICTION = "tensorflow.serving.PredictionService"
MODEL = "tensorflow.serving.ModelService"
_CODES = {code.value[0]: code for code in grpc.StatusCode}


async def _answer(core: Core, context: Any, model: str, api: str, work: Callable[[], Any]) -> Any:
    """Run `work` in a worker until the client's deadline; end the call with its error, if any."""
    left = context.time_remaining()
    deadline_s = left if left is not None and left < 1e9 else None
    try:
        return await core.counted(model, api, "GRPC", lambda: core.workers.run(work, deadline_s))
    except ServingError as error:
        await context.abort(_CODES[int(error.code)], error.message)


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """`tensorflow.serving.PredictionService`."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def Predict(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Run any signature on tensors."""
        return await self._call(request.model_spec, context, "Predict", service.predict, request)

    async def Classify(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Run a classification on examples."""
        return await self._call(request.model_spec, context, "Classify", service.classify, request)

    async def Regress(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Run a regression on examples."""
        return await self._call(request.model_spec, context, "Regress", service.regress, request)

    async def MultiInference(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Run several classifications and regressions on the same examples."""
        spec = request.tasks[0].model_spec if request.tasks else None
        return await self._call(spec, context, "MultiInference", service.multi_inference, request)

    async def GetModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Tell the signatures of a model."""
        return await self._call(
            request.model_spec, context, "GetModelMetadata", service.model_metadata, request
        )

    async def _call(
        self, spec: Any, context: Any, api: str, method: Callable[..., Any], request: Any
    ) -> Any:
        core = self._core
        name = spec.name if spec is not None else ""
        return await _answer(core, context, name, api, lambda: method(core.catalog, request))


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """`tensorflow.serving.ModelService`."""

    def __init__(self, core: Core, reload: Reload) -> None:
        self._core = core
        self._reload = reload

    async def GetModelStatus(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Tell the states of a model's versions."""
        core = self._core
        return await _answer(
            core,
            context,
            request.model_spec.name,
            "GetModelStatus",
            lambda: service.model_status(core.catalog, request),
        )

    async def HandleReloadConfigRequest(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Serve exactly the models of the request's configuration."""
        return await _answer(
            self._core, context, "", "HandleReloadConfigRequest", lambda: self._reload(request)
        )


def make_server(core: Core, reload: Reload, max_bytes: int) -> tuple[Any, HealthServicer]:
    """Return a gRPC server with all services and its health servicer; it is not bound yet."""
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", max_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
        ]
    )
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        PredictionService(core), server
    )
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(core, reload), server)
    checks = HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    reflection.enable_server_reflection(
        (PREDICTION, MODEL, health.SERVICE_NAME, reflection.SERVICE_NAME), server
    )
    return server, checks


async def set_health(checks: HealthServicer, serving: bool) -> None:
    """Tell the health of the server and of both services."""
    status = health_pb2.HealthCheckResponse
    value = status.SERVING if serving else status.NOT_SERVING
    for name in ("", PREDICTION, MODEL):
        await checks.set(name, value)


def bind(server: Any, host: str, port: int, tls: TlsConfig | None) -> int:
    """Bind the server; return the port, which is a free one where `port` is 0.

    Raises:
        ServingError: UNAVAILABLE, if the port is taken; FAILED_PRECONDITION for unusable PEM.
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
