"""The gRPC protocol as pure functions: messages from values, values from messages."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from regraft_client.errors import ServerFailedError, ServingClientError
from regraft_client.messages import MESSAGES
from regraft_client.rest_wire import CLASSIFY, EXAMPLE_KEY, FEATURES
from regraft_client.results import (
    ClassScore,
    Metadata,
    Prediction,
    SignatureInfo,
    TensorInfo,
    VersionStatus,
    predictions,
)

PREDICTION = "/tensorflow.serving.PredictionService"
MODEL = "/tensorflow.serving.ModelService"
IMAGE_BYTES = "image_bytes"
FLOAT, STRING, BOOL = 1, 7, 10
STATES = {0: "UNKNOWN", 10: "START", 20: "LOADING", 30: "AVAILABLE", 40: "UNLOADING", 50: "END"}
CODES = ("OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND",
         "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
         "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS",
         "UNAUTHENTICATED")  # fmt: skip
DTYPES = {1: "DT_FLOAT", 2: "DT_DOUBLE", 3: "DT_INT32", 4: "DT_UINT8", 5: "DT_INT16", 6: "DT_INT8",
          7: "DT_STRING", 9: "DT_INT64", 10: "DT_BOOL", 14: "DT_BFLOAT16", 17: "DT_UINT16",
          19: "DT_HALF", 22: "DT_UINT32", 23: "DT_UINT64"}  # fmt: skip


class Target(NamedTuple):
    """The model that is asked, and which version of it."""

    model: str
    version: int | None = None
    label: str | None = None


class Call(NamedTuple):
    """One unary call: the method's path, the request, the class of the answer."""

    path: str
    request: Any
    answer: Any


def predict_call(target: Target, images: Sequence[bytes], signature: str = "") -> Call:
    """Return the call that sends encoded images as a string tensor [n]."""
    request = MESSAGES["PredictRequest"]()
    _fill_spec(request.model_spec, target, signature)
    tensor = request.inputs[IMAGE_BYTES]
    tensor.dtype = STRING
    tensor.tensor_shape.dim.add(size=len(images))
    tensor.string_val.extend(images)
    return Call(f"{PREDICTION}/Predict", request, MESSAGES["PredictResponse"])


def features_call(target: Target, images: Sequence[bytes]) -> Call:
    """Return the call of the signature `features`."""
    return predict_call(target, images, FEATURES)


def classify_call(target: Target, images: Sequence[bytes]) -> Call:
    """Return the call of the Classify API."""
    request = MESSAGES["ClassificationRequest"]()
    _fill_spec(request.model_spec, target, CLASSIFY)
    for image in images:
        example = request.input.example_list.examples.add()
        example.features.feature[EXAMPLE_KEY].bytes_list.value.append(image)
    return Call(f"{PREDICTION}/Classify", request, MESSAGES["ClassificationResponse"])


def status_call(target: Target) -> Call:
    """Return the call for the states of a model's versions."""
    request = MESSAGES["GetModelStatusRequest"]()
    _fill_spec(request.model_spec, target, "")
    return Call(f"{MODEL}/GetModelStatus", request, MESSAGES["GetModelStatusResponse"])


def metadata_call(target: Target) -> Call:
    """Return the call for a model's signatures."""
    request = MESSAGES["GetModelMetadataRequest"]()
    _fill_spec(request.model_spec, target, "")
    request.metadata_field.append("signature_def")
    return Call(f"{PREDICTION}/GetModelMetadata", request, MESSAGES["GetModelMetadataResponse"])


def parse_predictions(answer: Any) -> list[Prediction]:
    """Read the outputs of `serving_default`."""
    labels = [value.decode("utf-8", "replace") for value in strings(answer, "label")]
    confidences, _ = floats(answer, "confidence")
    values, shape = floats(answer, "probabilities")
    width = shape[-1] if shape else 0
    rows = [values[start : start + width] for start in range(0, len(labels) * width, width or 1)]
    familiar = bools(answer, "familiar") if "familiar" in answer.outputs else None
    return predictions(labels, confidences, rows, familiar)


def parse_features(answer: Any) -> list[tuple[float, ...]]:
    """Read the only output of `features`, one row per image."""
    if len(answer.outputs) != 1:
        raise ServerFailedError("INTERNAL", f"expected one output, got {sorted(answer.outputs)}")
    values, shape = floats(answer, next(iter(answer.outputs)))
    width = shape[-1] if len(shape) > 1 else 1
    return [tuple(values[start : start + width]) for start in range(0, len(values), width)]


def parse_classes(answer: Any) -> list[list[ClassScore]]:
    """Read the results of the Classify API."""
    return [
        [ClassScore(entry.label, entry.score) for entry in row.classes]
        for row in answer.result.classifications
    ]


def parse_status(answer: Any) -> list[VersionStatus]:
    """Read the states of a model's versions."""
    return [
        VersionStatus(
            item.version,
            STATES.get(item.state, str(item.state)),
            code_name(item.status.error_code),
            item.status.error_message,
        )
        for item in answer.model_version_status
    ]


def parse_metadata(answer: Any) -> Metadata:
    """Read a model's signatures."""
    packed = answer.metadata["signature_def"]
    signatures = MESSAGES["SignatureDefMap"].FromString(packed.value).signature_def
    return Metadata(
        answer.model_spec.name,
        answer.model_spec.version.value,
        {
            name: SignatureInfo(item.method_name, _tensors(item.inputs), _tensors(item.outputs))
            for name, item in signatures.items()
            if not name.startswith("__")
        },
    )


def code_name(number: int) -> str:
    """Return the name of a status code."""
    return CODES[number] if 0 <= number < len(CODES) else "UNKNOWN"


def strings(answer: Any, name: str) -> list[bytes]:
    """Return the values of a string output."""
    tensor = _output(answer, name)
    if tensor.dtype != STRING:
        raise ServerFailedError("INTERNAL", f"expected output {name} of strings")
    return list(tensor.string_val)


def floats(answer: Any, name: str) -> tuple[list[float], tuple[int, ...]]:
    """Return the values and the shape of a float32 output."""
    tensor = _output(answer, name)
    if tensor.dtype != FLOAT:
        raise ServerFailedError("INTERNAL", f"expected output {name} of float32")
    shape = tuple(int(dim.size) for dim in tensor.tensor_shape.dim)
    if tensor.tensor_content:
        count = len(tensor.tensor_content) // 4
        return list(struct.unpack(f"<{count}f", tensor.tensor_content)), shape
    return list(tensor.float_val), shape


def bools(answer: Any, name: str) -> list[bool]:
    """Return the values of a bool output."""
    tensor = _output(answer, name)
    if tensor.dtype != BOOL:
        raise ServerFailedError("INTERNAL", f"expected output {name} of bool")
    return list(map(bool, tensor.tensor_content or tensor.bool_val))


def _output(answer: Any, name: str) -> Any:
    if name not in answer.outputs:
        raise ServerFailedError(
            "INTERNAL", f"expected {name!r} in the server's answer, got {sorted(answer.outputs)}"
        )
    return answer.outputs[name]


def _tensors(items: Mapping[str, Any]) -> dict[str, TensorInfo]:
    return {
        alias: TensorInfo(
            item.name,
            DTYPES.get(item.dtype, str(item.dtype)),
            None
            if item.tensor_shape.unknown_rank
            else tuple(int(dim.size) for dim in item.tensor_shape.dim),
        )
        for alias, item in items.items()
    }


def _fill_spec(spec: Any, target: Target, signature: str) -> None:
    if target.version is not None and target.label is not None:
        raise ServingClientError("expected a version or a label, got both")
    spec.name = target.model
    spec.signature_name = signature
    if target.version is not None:
        spec.version.value = target.version
    if target.label is not None:
        spec.version_label = target.label
