"""The gRPC protocol as pure functions: messages from values, values from messages."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from . import serving_pb2 as pb
from .clients import ApiRequest, check_available, check_metadata
from .errors import InvalidInputError, unreadable
from .rest_wire import CLASSIFY, EXAMPLE_KEY, FEATURES
from .results import (
    ERROR,
    ClassScore,
    Metadata,
    Prediction,
    SignatureInfo,
    TensorInfo,
    VersionStatus,
    check_images,
    check_scores,
    join_outputs,
)

PREDICTION = "/tensorflow.serving.PredictionService"
MODEL = "/tensorflow.serving.ModelService"
IMAGE_BYTES = "image_bytes"


class Target(NamedTuple):
    """The model that requests are for, and optionally one of its versions or labels."""

    model: str
    version: int | None = None
    label: str | None = None


class Call(NamedTuple):
    """One unary call: the method's path, the request, the class of the response."""

    path: str
    request: Any
    response_type: Any


@dataclass(frozen=True)
class GrpcRequests:
    """The requests of TF Serving's gRPC services for one model."""

    target: Target

    def predict(self, images: Sequence[bytes]) -> ApiRequest[list[Prediction]]:
        """Implement `ModelRequests.predict`."""
        return ApiRequest(predict_call(self.target, images), parse_predictions)

    def classify(self, images: Sequence[bytes]) -> ApiRequest[list[list[ClassScore]]]:
        """Implement `ModelRequests.classify`."""
        return ApiRequest(classify_call(self.target, images), parse_classes)

    def features(self, images: Sequence[bytes]) -> ApiRequest[list[tuple[float, ...]]]:
        """Implement `ModelRequests.features`."""
        return ApiRequest(predict_call(self.target, images, FEATURES), parse_features)

    def status(self) -> ApiRequest[list[VersionStatus]]:
        """Implement `ModelRequests.status`."""
        return ApiRequest(status_call(self.target), parse_status)

    def readiness(self) -> ApiRequest[None]:
        """Implement `ModelRequests.readiness`."""
        if self.target.label is not None:
            return ApiRequest(self.metadata().call, check_metadata)
        return ApiRequest(self.status().call, lambda value: check_available(parse_status(value)))

    def metadata(self) -> ApiRequest[Metadata]:
        """Implement `ModelRequests.metadata`."""
        return ApiRequest(metadata_call(self.target), parse_metadata)


def predict_call(target: Target, images: Sequence[bytes], signature: str = "") -> Call:
    """Return the call that sends encoded images as a string tensor [n]."""
    tensor = pb.TensorProto(dtype=pb.DT_STRING, string_val=images)
    tensor.tensor_shape.dim.add(size=len(images))
    request = pb.PredictRequest(model_spec=_spec(target, signature), inputs={IMAGE_BYTES: tensor})
    return Call(f"{PREDICTION}/Predict", request, pb.PredictResponse)


def classify_call(target: Target, images: Sequence[bytes]) -> Call:
    """Return the call of the Classify API."""
    request = pb.ClassificationRequest(model_spec=_spec(target, CLASSIFY))
    for image in images:
        example = request.input.example_list.examples.add()
        example.features.feature[EXAMPLE_KEY].bytes_list.value.append(image)
    return Call(f"{PREDICTION}/Classify", request, pb.ClassificationResponse)


def status_call(target: Target) -> Call:
    """Return the call for the states of a model's versions."""
    request = pb.GetModelStatusRequest(model_spec=_spec(target))
    return Call(f"{MODEL}/GetModelStatus", request, pb.GetModelStatusResponse)


def metadata_call(target: Target) -> Call:
    """Return the call for a model's signatures."""
    request = pb.GetModelMetadataRequest(model_spec=_spec(target), metadata_field=["signature_def"])
    return Call(f"{PREDICTION}/GetModelMetadata", request, pb.GetModelMetadataResponse)


def parse_predictions(response: Any) -> list[Prediction]:
    """Parse the outputs of `serving_default`."""
    labels = _strings(response, "label")
    confidences, _ = _floats(response, "confidence")
    values, shape = _floats(response, "probabilities")
    width = shape[-1] if shape else 0
    flags = {
        name: _bools(response, name)
        for name in ("familiar", "abstain", "label_set", "selected")
        if name in response.outputs
    }
    sets, selected = (
        _rows(flags[name], width) if name in flags else None for name in ("label_set", "selected")
    )
    return join_outputs(
        labels, confidences, _rows(values, width)[: len(labels)], flags.get("familiar"),
        _reasons(response), label_sets=sets, abstain=flags.get("abstain"), selected=selected,
    )  # fmt: skip


def _rows(values: Sequence[Any], width: int) -> list[Sequence[Any]]:
    """Return the rows of a matrix whose values are in one list."""
    return [values[start : start + width] for start in range(0, len(values), width or 1)]


def parse_features(response: Any) -> list[tuple[float, ...]]:
    """Parse the output `features`, or the only one except `error`; one row per image."""
    names = sorted(set(response.outputs) - {ERROR})
    if FEATURES in names:
        names = [FEATURES]
    if len(names) != 1:
        raise unreadable(f"expected the output {FEATURES!r} or only one, got {names}")
    values, shape = _floats(response, names[0])
    width = shape[-1] if len(shape) > 1 else 1
    rows = [tuple(values[start : start + width]) for start in range(0, len(values), width)]
    return check_images(rows, _reasons(response))


def parse_classes(response: Any) -> list[list[ClassScore]]:
    """Parse the results of the Classify API."""
    rows = response.result.classifications
    return check_scores([[ClassScore(one.label, one.score) for one in row.classes] for row in rows])


def parse_status(response: Any) -> list[VersionStatus]:
    """Parse the states of a model's versions."""
    return [
        VersionStatus(
            item.version,
            _enum_name(pb.ModelVersionStatus.State, item.state),
            _enum_name(pb.Code, item.status.error_code),
            item.status.error_message,
        )
        for item in response.model_version_status
    ]


def parse_metadata(response: Any) -> Metadata:
    """Parse a model's signatures."""
    packed = response.metadata["signature_def"]
    signatures = pb.SignatureDefMap.FromString(packed.value).signature_def
    return Metadata(
        response.model_spec.name,
        response.model_spec.version.value,
        {
            name: SignatureInfo(item.method_name, _tensors(item.inputs), _tensors(item.outputs))
            for name, item in signatures.items()
            if not name.startswith("__")
        },
    )


def _strings(response: Any, name: str) -> list[str]:
    values = _output(response, name, pb.DT_STRING).string_val
    return [value.decode("utf-8", "replace") for value in values]


def _reasons(response: Any) -> list[str] | None:
    return _strings(response, ERROR) if ERROR in response.outputs else None


def _floats(response: Any, name: str) -> tuple[list[float], tuple[int, ...]]:
    """Return the values and the shape of a float32 output."""
    tensor = _output(response, name, pb.DT_FLOAT)
    shape = tuple(int(dim.size) for dim in tensor.tensor_shape.dim)
    if tensor.tensor_content:
        count = len(tensor.tensor_content) // 4
        return list(struct.unpack(f"<{count}f", tensor.tensor_content)), shape
    return list(tensor.float_val), shape


def _bools(response: Any, name: str) -> list[bool]:
    tensor = _output(response, name, pb.DT_BOOL)
    return list(map(bool, tensor.tensor_content or tensor.bool_val))


def _output(response: Any, name: str, dtype: int) -> Any:
    if name not in response.outputs:
        raise unreadable(f"expected the output {name!r}, got {sorted(response.outputs)}")
    tensor = response.outputs[name]
    if tensor.dtype != dtype:
        expected, received = (_enum_name(pb.DataType, kind) for kind in (dtype, tensor.dtype))
        raise unreadable(f"expected output {name!r} as {expected}, got {received}")
    return tensor


def _tensors(items: Mapping[str, Any]) -> dict[str, TensorInfo]:
    return {
        alias: TensorInfo(
            item.name,
            _enum_name(pb.DataType, item.dtype),
            None
            if item.tensor_shape.unknown_rank
            else tuple(int(dim.size) for dim in item.tensor_shape.dim),
        )
        for alias, item in items.items()
    }


def _enum_name(kind: Any, number: int) -> str:
    """Return the name of an enum's value, or its number if this client does not know it."""
    return str(kind.Name(number)) if number in kind.values() else str(number)


def _spec(target: Target, signature: str = "") -> pb.ModelSpec:
    if target.version is not None and target.label is not None:
        raise InvalidInputError("expected a version or a label, got both")
    spec = pb.ModelSpec(name=target.model, signature_name=signature)
    if target.version is not None:
        spec.version.value = target.version
    if target.label is not None:
        spec.version_label = target.label
    return spec
