"""The gRPC messages of the Open Inference Protocol: tensors of requests and responses."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from serving.server.protocol import open_inference
from serving.server.protocol.open_inference import (
    InferRequest,
    InferResponse,
    RequestedOutput,
    TensorHeader,
)
from serving.server.protocol.status import invalid
from serving.server.protocol.tensors import Typed

_FIELDS = {
    tf.bool: "bool_contents",
    tf.int8: "int_contents",
    tf.int16: "int_contents",
    tf.int32: "int_contents",
    tf.int64: "int64_contents",
    tf.uint8: "uint_contents",
    tf.uint16: "uint_contents",
    tf.uint32: "uint_contents",
    tf.uint64: "uint64_contents",
    tf.float32: "fp32_contents",
    tf.float64: "fp64_contents",
    tf.string: "bytes_contents",
}


def read_request(message: Any) -> InferRequest:
    """Read a `ModelInferRequest`.

    The outputs are returned as raw bytes if the inputs are sent so, or by the parameter
    `binary_data_output`.

    Raises:
        ServingError: INVALID_ARGUMENT if shapes, types and values do not match, UNIMPLEMENTED for a
            parameter that is not supported.
    """
    raw = message.raw_input_contents
    if raw and len(raw) != len(message.inputs):
        raise invalid(
            f"expected raw_input_contents of all {len(message.inputs)} inputs, got {len(raw)}"
        )
    inputs = open_inference.by_name(
        (one.name, _read_input(one, raw[index] if raw else None))
        for index, one in enumerate(message.inputs)
    )
    for output in message.outputs:
        open_inference.check_parameters(f"output {output.name}", output.parameters)
    parameters = message.parameters
    binary = bool(raw)
    if "binary_data_output" in parameters:
        binary = parameters["binary_data_output"].bool_param
    signature = ""
    if "signature_name" in parameters:
        signature = parameters["signature_name"].string_param
    outputs = [RequestedOutput(one.name, binary) for one in message.outputs]
    return InferRequest(inputs, message.id, signature, outputs, binary)


def fill_response(response: InferResponse, binary: bool, message: Any) -> None:
    """Fill a `ModelInferResponse`; half precision has no other form than raw bytes.

    Raises:
        ServingError: UNIMPLEMENTED for a type that the protocol does not have.
    """
    message.model_name = response.model
    message.model_version = str(response.version)
    message.id = response.id
    outputs = response.outputs
    binary = binary or any(typed.dtype not in _FIELDS for typed in outputs.values())
    for name, typed in outputs.items():
        datatype = open_inference.datatype_of(f"output {name}", typed.dtype)
        added = message.outputs.add(name=name, datatype=datatype, shape=typed.array.shape)
        if binary:
            message.raw_output_contents.append(open_inference.to_raw(typed))
        else:
            values = typed.array.reshape(-1).tolist()
            getattr(added.contents, _FIELDS[typed.dtype]).extend(values)


def _read_input(message: Any, raw: bytes | None) -> Typed:
    open_inference.check_parameters(f"input {message.name}", message.parameters)
    header = open_inference.read_header(message.name, message.datatype, message.shape)
    if raw is None:
        return Typed(_read_contents(header, message.contents), header.dtype)
    if message.contents.ByteSize():
        raise invalid(f"input {message.name}: expected contents or raw_input_contents, got both")
    return Typed(open_inference.from_raw(header, memoryview(raw)), header.dtype)


def _read_contents(header: TensorHeader, contents: Any) -> np.ndarray:
    field = _FIELDS.get(header.dtype)
    if field is None:
        raise invalid(f"input {header.name}: half precision is only sent in raw_input_contents")
    values = getattr(contents, field)
    open_inference.check_count(header, len(values))
    if header.dtype == tf.string:
        array = np.empty(len(values), dtype=object)
        array[:] = list(values)
        return array.reshape(header.shape)
    try:
        return np.array(values, dtype=header.dtype.as_numpy_dtype).reshape(header.shape)
    except OverflowError as error:
        raise invalid(f"input {header.name}: {error}") from None
