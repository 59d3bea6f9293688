"""The methods of the protocol on its own messages; gRPC and REST both end here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    predict_pb2,
    regression_pb2,
)

from serving.server.models.catalog import Catalog, Lease, ModelSpec
from serving.server.protocol import tensors
from serving.server.protocol.signature import DEFAULT_SIGNATURE
from serving.server.protocol.status import invalid
from serving.server.protocol.tensors import Typed
from serving.server.requests import examples, inference


def spec_of(request: Any) -> ModelSpec:
    """Return what a request's `model_spec` asks for.

    Raises:
        ServingError: INVALID_ARGUMENT where it has none.
    """
    if not request.HasField("model_spec"):
        raise invalid("Missing ModelSpec")
    return _spec(request.model_spec)


def _spec(model_spec: Any) -> ModelSpec:
    match model_spec.WhichOneof("version_choice"):
        case "version":
            return ModelSpec(model_spec.name, version=model_spec.version.value)
        case "version_label":
            return ModelSpec(model_spec.name, label=model_spec.version_label)
        case _:
            return ModelSpec(model_spec.name)


def predict(catalog: Catalog, request: Any) -> Any:
    """Answer a `PredictRequest`."""
    with catalog.lease(spec_of(request)) as lease:
        signature = inference.find_signature(lease.servable, request.model_spec.signature_name)
        names = list(request.inputs)
        inference.check_count(lease.servable, signature, names)
        inference.check_names(lease.servable, signature, names)
        inputs = {
            alias: Typed(
                tensors.from_proto(alias, request.inputs[alias]),
                tf.as_dtype(request.inputs[alias].dtype),
            )
            for alias in signature.inputs
            if alias in request.inputs
        }
        outputs = inference.predict(lease.servable, signature, inputs, request.output_filter)
        response = predict_pb2.PredictResponse()
        _echo(response.model_spec, lease, signature.name)
        for alias, typed in outputs.items():
            tensors.to_proto(typed.array, typed.dtype, response.outputs[alias])
        return response


def classify(catalog: Catalog, request: Any) -> Any:
    """Answer a `ClassificationRequest`."""
    with catalog.lease(spec_of(request)) as lease:
        name = request.model_spec.signature_name
        signature = examples.find_signature(lease.servable, name)
        examples.check_classification(signature)
        batch = examples.serialized_examples(request.input)
        response = classification_pb2.ClassificationResponse()
        response.result.CopyFrom(examples.classify(lease.servable, signature, batch))
        _echo(response.model_spec, lease, signature.name)
        return response


def regress(catalog: Catalog, request: Any) -> Any:
    """Answer a `RegressionRequest`."""
    with catalog.lease(spec_of(request)) as lease:
        name = request.model_spec.signature_name
        signature = examples.find_signature(lease.servable, name)
        examples.check_regression(signature)
        batch = examples.serialized_examples(request.input)
        response = regression_pb2.RegressionResponse()
        response.result.CopyFrom(examples.regress(lease.servable, signature, batch))
        _echo(response.model_spec, lease, signature.name)
        return response


def multi_inference(catalog: Catalog, request: Any) -> Any:
    """Answer a `MultiInferenceRequest`; its first task says which version."""
    if not request.tasks:
        raise invalid("Input is empty.")
    with catalog.lease(_spec(request.tasks[0].model_spec)) as lease:
        response = inference_pb2.MultiInferenceResponse()
        for signature, method, result in examples.multi_inference(lease.servable, request):
            added = response.results.add()
            _echo(added.model_spec, lease, signature.name)
            if method == examples.CLASSIFY_METHOD:
                added.classification_result.CopyFrom(result)
            else:
                added.regression_result.CopyFrom(result)
        return response


def model_metadata(catalog: Catalog, request: Any) -> Any:
    """Answer a `GetModelMetadataRequest`: the signatures, packed in an Any."""
    spec = spec_of(request)
    if not request.metadata_field:
        raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
    for field in request.metadata_field:
        if field != "signature_def":
            raise invalid(f"Metadata field {field} is not supported")
    with catalog.lease(spec) as lease:
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.model_spec.name = lease.name
        response.model_spec.version.value = lease.version
        response.metadata["signature_def"].Pack(signature_map(lease))
        return response


def signature_map(lease: Lease) -> Any:
    """Return the `SignatureDefMap` of a leased version."""
    result = get_model_metadata_pb2.SignatureDefMap()
    definitions: Mapping[str, Any] = lease.servable.meta_graph.signature_def
    for name, definition in definitions.items():
        result.signature_def[name].CopyFrom(definition)
    return result


def model_status(catalog: Catalog, request: Any) -> Any:
    """Answer a `GetModelStatusRequest`, newest version first."""
    spec = spec_of(request)
    if spec.label is not None:
        spec = ModelSpec(spec.name, catalog.labels(spec.name).get(spec.label), None)
        if spec.version is None:
            raise invalid(
                f"Unrecognized servable version label: {request.model_spec.version_label}"
            )
    response = get_model_status_pb2.GetModelStatusResponse()
    for status in catalog.statuses(spec.name, spec.version):
        added = response.model_version_status.add(version=status.version, state=status.state)
        added.status.error_code = status.code
        added.status.error_message = status.message
    return response


def _echo(model_spec: Any, lease: Lease, signature: str) -> None:
    model_spec.name = lease.name
    model_spec.version.value = lease.version
    model_spec.signature_name = signature or DEFAULT_SIGNATURE
