"""The methods of the API on TF Serving's messages; both ports call them."""

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
from serving.server.protocol.status import invalid
from serving.server.protocol.tensors import Typed
from serving.server.requests import examples, inference


def predict(catalog: Catalog, request: Any) -> Any:
    """Return the response to a `PredictRequest`."""
    with catalog.lease(_requested(request)) as lease:
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
        _set_served(response.model_spec, lease, signature.name)
        for alias, typed in outputs.items():
            tensors.to_proto(typed.array, typed.dtype, response.outputs[alias])
        return response


def classify(catalog: Catalog, request: Any) -> Any:
    """Return the response to a `ClassificationRequest`."""
    response = classification_pb2.ClassificationResponse()
    return _run_on_examples(catalog, request, examples.CLASSIFY, response)


def regress(catalog: Catalog, request: Any) -> Any:
    """Return the response to a `RegressionRequest`."""
    response = regression_pb2.RegressionResponse()
    return _run_on_examples(catalog, request, examples.REGRESS, response)


def _run_on_examples(catalog: Catalog, request: Any, method: str, response: Any) -> Any:
    with catalog.lease(_requested(request)) as lease:
        task = examples.find_task(lease.servable, request.model_spec.signature_name, method)
        batch = examples.read_examples(request.input)
        (result,) = examples.run_tasks(lease.servable, [task], batch)
        response.result.CopyFrom(result)
        _set_served(response.model_spec, lease, task.signature.name)
        return response


def multi_inference(catalog: Catalog, request: Any) -> Any:
    """Return the response to a `MultiInferenceRequest`; its first task selects the version."""
    if not request.tasks:
        raise invalid("Input is empty.")
    with catalog.lease(_model_spec(request.tasks[0].model_spec)) as lease:
        tasks = examples.find_tasks(lease.servable, request)
        batch = examples.read_examples(request.input)
        response = inference_pb2.MultiInferenceResponse()
        results = examples.run_tasks(lease.servable, tasks, batch)
        for (signature, method), result in zip(tasks, results, strict=True):
            added = response.results.add()
            _set_served(added.model_spec, lease, signature.name)
            if method == examples.CLASSIFY:
                added.classification_result.CopyFrom(result)
            else:
                added.regression_result.CopyFrom(result)
        return response


def model_metadata(catalog: Catalog, request: Any) -> Any:
    """Return the response to a `GetModelMetadataRequest`: the signatures, packed in an Any."""
    spec = _requested(request)
    if not request.metadata_field:
        raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
    for field in request.metadata_field:
        if field != "signature_def":
            raise invalid(f"Metadata field {field} is not supported")
    with catalog.lease(spec) as lease:
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        _set_served(response.model_spec, lease)
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
    """Return the response to a `GetModelStatusRequest`, newest version first.

    As in TF Serving, a label is ignored: the response has all versions.
    """
    spec = _requested(request)
    response = get_model_status_pb2.GetModelStatusResponse()
    for status in catalog.statuses(spec.name, spec.version):
        added = response.model_version_status.add(version=status.version, state=status.state)
        added.status.error_code = status.code
        added.status.error_message = status.message
    return response


def _requested(request: Any) -> ModelSpec:
    """Return the model and version that a request is for.

    Raises:
        ServingError: INVALID_ARGUMENT if it has no `model_spec`.
    """
    if not request.HasField("model_spec"):
        raise invalid("Missing ModelSpec")
    return _model_spec(request.model_spec)


def _model_spec(message: Any) -> ModelSpec:
    match message.WhichOneof("version_choice"):
        case "version":
            return ModelSpec(message.name, version=message.version.value)
        case "version_label":
            return ModelSpec(message.name, label=message.version_label)
        case _:
            return ModelSpec(message.name)


def _set_served(message: Any, lease: Lease, signature: str = "") -> None:
    """Fill a response's `model_spec` with the version that served it."""
    message.name = lease.name
    message.version.value = lease.version
    message.signature_name = signature
