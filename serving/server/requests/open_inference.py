"""The methods of the Open Inference Protocol, on plain values and on its gRPC messages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from regraft_core.runtime.version import VERSION
from serving.server.models.catalog import Catalog, ModelSpec
from serving.server.protocol import open_inference_messages as messages
from serving.server.protocol import open_inference_pb2 as pb
from serving.server.protocol.open_inference import InferRequest, InferResponse, datatype_of
from serving.server.protocol.signature import TensorSpec
from serving.server.protocol.version_number import parse_version
from serving.server.requests import inference

_PLATFORM = "tensorflow_savedmodel"
_EXTENSIONS = ("binary_tensor_data",)


def model_spec(name: str, version: str) -> ModelSpec:
    """Return the model of a request; a version that is not a number is a label."""
    if not version:
        return ModelSpec(name)
    if version.isascii() and version.isdecimal():
        return ModelSpec(name, version=parse_version(version))
    return ModelSpec(name, label=version)


def infer(catalog: Catalog, spec: ModelSpec, request: InferRequest) -> InferResponse:
    """Return the outputs of a signature, or those that are requested."""
    with catalog.lease(spec) as lease:
        signature = inference.find_signature(lease.servable, request.signature)
        inference.check_count(lease.servable, signature, list(request.inputs))
        inference.check_names(lease.servable, signature, list(request.inputs))
        names = [one.name for one in request.outputs]
        outputs = inference.predict(lease.servable, signature, request.inputs, names)
        return InferResponse(lease.name, lease.version, request.id, outputs)


def server_metadata() -> dict[str, Any]:
    """Return the name and version of the server, and the extensions of the protocol."""
    return {"name": "regraft", "version": VERSION, "extensions": list(_EXTENSIONS)}


def server_ready(catalog: Catalog) -> bool:
    """Return whether every configured model has an available version."""
    return all(catalog.available(name) for name in catalog.configured())


def model_ready(catalog: Catalog, spec: ModelSpec) -> bool:
    """Return whether a version is available.

    Raises:
        ServingError: NOT_FOUND for an unknown model or version, INVALID_ARGUMENT for an unknown
            label.
    """
    versions = {status.version for status in catalog.statuses(spec.name, spec.version)}
    if spec.label is not None:
        versions = {catalog.labeled(spec.name, spec.label)}
    return bool(versions & set(catalog.available(spec.name)))


def model_metadata(catalog: Catalog, spec: ModelSpec) -> dict[str, Any]:
    """Return the available versions of a model, and the tensors of its default signature."""
    with catalog.lease(spec) as lease:
        signature = inference.find_signature(lease.servable, "")
        return {
            "name": lease.name,
            "versions": [str(number) for number in catalog.available(lease.name)],
            "platform": _PLATFORM,
            "inputs": _tensors("input", signature.inputs),
            "outputs": _tensors("output", signature.outputs),
        }


def _tensors(kind: str, specs: Mapping[str, TensorSpec]) -> list[dict[str, Any]]:
    """Return the metadata of tensors; a shape of unknown rank is that of one dimension."""
    return [
        {
            "name": name,
            "datatype": datatype_of(f"{kind} {name}", spec.dtype),
            "shape": list(spec.shape) if spec.shape is not None else [-1],
        }
        for name, spec in specs.items()
    ]


def _infer_message(catalog: Catalog, message: Any) -> Any:
    request = messages.read_request(message)
    spec = model_spec(message.model_name, message.model_version)
    result = pb.ModelInferResponse()
    messages.fill_response(infer(catalog, spec, request), request.binary, result)
    return result


def _model_metadata_message(catalog: Catalog, message: Any) -> Any:
    return pb.ModelMetadataResponse(
        **model_metadata(catalog, model_spec(message.name, message.version))
    )


def _model_ready_message(catalog: Catalog, message: Any) -> Any:
    ready = model_ready(catalog, model_spec(message.name, message.version))
    return pb.ModelReadyResponse(ready=ready)


# By the name of the gRPC method: its request and its response.
GRPC_METHODS: dict[str, tuple[Any, Callable[[Catalog, Any], Any]]] = {
    "ServerLive": (pb.ServerLiveRequest, lambda *_: pb.ServerLiveResponse(live=True)),
    "ServerReady": (
        pb.ServerReadyRequest,
        lambda catalog, _: pb.ServerReadyResponse(ready=server_ready(catalog)),
    ),
    "ModelReady": (pb.ModelReadyRequest, _model_ready_message),
    "ServerMetadata": (
        pb.ServerMetadataRequest,
        lambda *_: pb.ServerMetadataResponse(**server_metadata()),
    ),
    "ModelMetadata": (pb.ModelMetadataRequest, _model_metadata_message),
    "ModelInfer": (pb.ModelInferRequest, _infer_message),
}
