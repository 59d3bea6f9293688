"""The Open Inference Protocol's values: its datatypes, requests, and tensors as raw bytes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import tensorflow as tf

from serving.server.protocol.status import Code, ServingError, invalid
from serving.server.protocol.tensors import MAX_RANK, MAX_TENSOR_BYTES, Typed

_DATATYPES = {
    tf.bool: "BOOL",
    tf.uint8: "UINT8",
    tf.uint16: "UINT16",
    tf.uint32: "UINT32",
    tf.uint64: "UINT64",
    tf.int8: "INT8",
    tf.int16: "INT16",
    tf.int32: "INT32",
    tf.int64: "INT64",
    tf.float16: "FP16",
    tf.bfloat16: "BF16",
    tf.float32: "FP32",
    tf.float64: "FP64",
    tf.string: "BYTES",
}
_DTYPES = {name: dtype for dtype, name in _DATATYPES.items()}
_LENGTH_BYTES = 4
_UNSUPPORTED = ("classification", "shared_memory_region")
Value = TypeVar("Value")


@dataclass(frozen=True)
class RequestedOutput:
    """An output to return, as raw bytes if `binary`."""

    name: str
    binary: bool = False


@dataclass(frozen=True)
class InferRequest:
    """An inference request.

    `signature` is "" for the default one. Without `outputs`, all are returned, as raw bytes if
    `binary`.
    """

    inputs: Mapping[str, Typed]
    id: str = ""
    signature: str = ""
    outputs: Sequence[RequestedOutput] = ()
    binary: bool = False

    def is_binary(self, output: str) -> bool:
        """Return whether an output is wanted as raw bytes."""
        return next((one.binary for one in self.outputs if one.name == output), self.binary)


@dataclass(frozen=True)
class InferResponse:
    """The outputs of an inference request by name, and the version that computed them."""

    model: str
    version: int
    id: str
    outputs: Mapping[str, Typed]


@dataclass(frozen=True)
class TensorHeader:
    """What a request says about a tensor, without its values."""

    name: str
    dtype: tf.DType
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)


def datatype_of(name: str, dtype: tf.DType) -> str:
    """Return the protocol's name of a tensor's type.

    Raises:
        ServingError: UNIMPLEMENTED, the protocol has no such type.
    """
    if dtype not in _DATATYPES:
        raise ServingError(
            Code.UNIMPLEMENTED, f"{name}: the Open Inference Protocol has no type {dtype.name}"
        )
    return _DATATYPES[dtype]


def read_header(name: str, datatype: str, shape: Sequence[int]) -> TensorHeader:
    """Return the checked header of a request's tensor.

    Raises:
        ServingError: INVALID_ARGUMENT for an unknown type, or a shape that is not one or too large.
    """
    dtype = _DTYPES.get(datatype)
    if dtype is None:
        expected = ", ".join(_DTYPES)
        raise invalid(f"input {name}: expected a datatype of {expected}; got {datatype[:100]!a}")
    if len(shape) > MAX_RANK or min(shape, default=0) < 0:
        raise invalid(
            f"input {name}: expected a shape of at most {MAX_RANK} sizes of 0 or more, "
            f"got {list(shape[: MAX_RANK + 1])}"
        )
    header = TensorHeader(name, dtype, tuple(shape))
    # NumPy has no array with such a dimension, even if another one is 0.
    largest = math.prod(size or 1 for size in shape) * max(dtype.size, 1)
    if largest > MAX_TENSOR_BYTES:
        raise invalid(f"input {name}: shape {list(shape)} takes more than {MAX_TENSOR_BYTES} bytes")
    return header


def check_count(header: TensorHeader, count: int) -> None:
    """Check the number of a tensor's values."""
    if count != header.count:
        raise invalid(
            f"input {header.name}: expected {header.count} values for shape "
            f"{list(header.shape)}, got {count}"
        )


def check_parameters(name: str, parameters: Iterable[str]) -> None:
    """Reject the parameters that would change a tensor and are not supported."""
    for parameter in _UNSUPPORTED:
        if parameter in parameters:
            raise ServingError(Code.UNIMPLEMENTED, f"{name}: {parameter} is not supported")


def by_name(pairs: Iterable[tuple[str, Value]]) -> dict[str, Value]:
    """Return inputs by name; none may occur twice."""
    found: dict[str, Value] = {}
    for name, value in pairs:
        if name in found:
            raise invalid(f"duplicate input: {name}")
        found[name] = value
    return found


def from_raw(header: TensorHeader, content: memoryview) -> np.ndarray:
    """Return a tensor from its raw form: values in little-endian order, BYTES with their lengths.

    Raises:
        ServingError: INVALID_ARGUMENT if the size does not match the shape.
    """
    if header.dtype == tf.string:
        return _split(header, content).reshape(header.shape)
    expected = header.count * header.dtype.size
    if len(content) != expected:
        raise invalid(
            f"input {header.name}: expected {expected} bytes for shape {list(header.shape)}, "
            f"got {len(content)}"
        )
    if header.dtype == tf.bool and bytes(content).translate(None, b"\0\1"):
        raise invalid(f"input {header.name}: expected bytes of 0 or 1 for BOOL")
    return np.frombuffer(content, dtype=header.dtype.as_numpy_dtype).reshape(header.shape)


def to_raw(typed: Typed) -> bytes:
    """Return the raw form of a tensor."""
    array, dtype = typed
    if dtype != tf.string:
        return np.ascontiguousarray(array).tobytes()
    parts: list[bytes] = []
    for value in array.flat:
        parts += [len(value).to_bytes(_LENGTH_BYTES, "little"), value]
    return b"".join(parts)


def _split(header: TensorHeader, content: memoryview) -> np.ndarray:
    if header.count * _LENGTH_BYTES > len(content):
        raise invalid(
            f"input {header.name}: expected the lengths of {header.count} values, "
            f"got {len(content)} bytes"
        )
    values: list[bytes] = []
    start = 0
    while start < len(content):
        end = start + _LENGTH_BYTES
        length = int.from_bytes(content[start:end], "little")
        start = end + length
        if start > len(content):
            raise invalid(f"input {header.name}: value {len(values)} is longer than the data")
        values.append(bytes(content[end:start]))
    check_count(header, len(values))
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array
