"""REST bodies of the Open Inference Protocol: JSON, and tensors as bytes after it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from serving.server.protocol import json_tensor, json_values, open_inference
from serving.server.protocol.open_inference import (
    InferRequest,
    InferResponse,
    RequestedOutput,
    TensorHeader,
)
from serving.server.protocol.status import ServingError, invalid
from serving.server.protocol.tensors import Typed

_KINDS = {str: "a string", list: "a list", dict: "an object", bool: "true or false"}
_ONLY_BINARY = (tf.float16, tf.bfloat16)


def read_request(document: Mapping[str, Any], binary: memoryview) -> InferRequest:
    """Read an inference request.

    Args:
        document: the JSON object.
        binary: the bytes that follow it in the body.

    Raises:
        ServingError: INVALID_ARGUMENT if it is not as the protocol expects, UNIMPLEMENTED for a
            parameter that is not supported, and for half precision in JSON.
    """
    parameters = _field(document, "parameters", dict, {})
    data = _BinaryData(binary)
    inputs = open_inference.by_name(
        _read_input(_checked(one, dict, "an element of inputs"), data)
        for one in _field(document, "inputs", list)
    )
    data.check_end()
    by_default = _field(parameters, "binary_data_output", bool, False)
    return InferRequest(
        inputs,
        _field(document, "id", str, ""),
        _field(parameters, "signature_name", str, ""),
        [
            _read_output(_checked(one, dict, "an element of outputs"), by_default)
            for one in _field(document, "outputs", list, [])
        ],
        by_default,
    )


def write_response(response: InferResponse, request: InferRequest) -> tuple[bytes, bytes | None]:
    """Return the JSON of a response, and the bytes that follow it; None if no output is binary.

    Raises:
        ServingError: INVALID_ARGUMENT for values that JSON cannot represent, UNIMPLEMENTED for a
            type that the protocol does not have.
    """
    outputs: list[dict[str, Any]] = []
    parts: list[bytes] = []
    for name, typed in response.outputs.items():
        shown: dict[str, Any] = {
            "name": name,
            "shape": list(typed.array.shape),
            "datatype": open_inference.datatype_of(f"output {name}", typed.dtype),
        }
        if request.is_binary(name):
            parts.append(open_inference.to_raw(typed))
            shown["parameters"] = {"binary_data_size": len(parts[-1])}
        else:
            shown["data"] = _listed(name, typed)
        outputs.append(shown)
    head = {"model_name": response.model, "model_version": str(response.version)}
    if response.id:
        head["id"] = response.id
    document = json_values.dump({**head, "outputs": outputs})
    return document, b"".join(parts) if parts else None


class _BinaryData:
    """The bytes after the JSON, which inputs take in their order."""

    def __init__(self, content: memoryview) -> None:
        self._rest = content

    def take(self, name: str, size: int) -> memoryview:
        """Return the next `size` bytes."""
        if not 0 <= size <= len(self._rest):
            raise invalid(
                f"input {name}: expected binary_data_size of at most the {len(self._rest)} bytes "
                f"that are left after the JSON, got {size}"
            )
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken

    def check_end(self) -> None:
        """Check that no bytes are left."""
        if self._rest:
            raise invalid(f"{len(self._rest)} bytes after the JSON belong to no input")


def _read_input(value: Mapping[str, Any], data: _BinaryData) -> tuple[str, Typed]:
    name = _field(value, "name", str)
    parameters = _field(value, "parameters", dict, {})
    open_inference.check_parameters(f"input {name}", parameters)
    shape = _field(value, "shape", list)
    if not all(type(size) is int for size in shape):
        raise invalid(f"input {name}: expected integers in shape, got {json_values.shown(shape)}")
    header = open_inference.read_header(name, _field(value, "datatype", str), shape)
    size = parameters.get("binary_data_size")
    if size is None:
        return name, Typed(_read_data(header, _field(value, "data", list)), header.dtype)
    if type(size) is not int or "data" in value:
        raise invalid(f"input {name}: expected data, or an integer as binary_data_size")
    return name, Typed(open_inference.from_raw(header, data.take(name, size)), header.dtype)


def _read_data(header: TensorHeader, data: list[Any]) -> np.ndarray:
    # TF Serving reads no uint16 from JSON.
    is_uint16 = header.dtype == tf.uint16
    try:
        array = json_tensor.to_array(data, tf.uint32 if is_uint16 else header.dtype)
    except ServingError as error:
        raise ServingError(error.code, f"input {header.name}: {error.message}") from None
    open_inference.check_count(header, array.size)
    if array.ndim > 1 and array.shape != header.shape:
        raise invalid(
            f"input {header.name}: expected data as a flat list or of shape "
            f"{list(header.shape)}, got shape {list(array.shape)}"
        )
    if is_uint16 and array.max(initial=0) > tf.uint16.max:
        raise invalid(f"input {header.name}: expected at most {tf.uint16.max}, got {array.max()}")
    return array.astype(header.dtype.as_numpy_dtype, copy=False).reshape(header.shape)


def _read_output(value: Mapping[str, Any], by_default: bool) -> RequestedOutput:
    name = _field(value, "name", str)
    parameters = _field(value, "parameters", dict, {})
    open_inference.check_parameters(f"output {name}", parameters)
    return RequestedOutput(name, _field(parameters, "binary_data", bool, by_default))


def _field(value: Mapping[str, Any], key: str, kind: type, default: Any = None) -> Any:
    """Return a member of an object; without a default it is required."""
    if key not in value:
        if default is None:
            raise invalid(f"Missing {key!r} in {json_values.shown(dict(value))}")
        return default
    return _checked(value[key], kind, key)


def _checked(value: Any, kind: type, key: str) -> Any:
    if not isinstance(value, kind):
        raise invalid(f"{key}: expected {_KINDS[kind]}, got {json_values.shown(value)}")
    return value


def _listed(name: str, typed: Typed) -> list[Any]:
    array, dtype = typed
    if dtype in _ONLY_BINARY:
        raise invalid(f"output {name}: JSON has no half precision; request it as binary_data")
    flat = array.reshape(-1)
    if dtype != tf.string:
        return json_tensor.number_list(flat, dtype)
    try:
        return [value.decode() for value in flat]
    except UnicodeDecodeError:
        raise invalid(f"output {name}: expected UTF-8; request it as binary_data") from None
