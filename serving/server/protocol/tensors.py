"""`TensorProto` to NumPy arrays and back, with limits and strict checks."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from serving.server.protocol.status import invalid

MAX_TENSOR_BYTES = 1 << 30
# A tensor with fewer values than elements is filled up: a few bytes must not become a large tensor.
MAX_FILLED_BYTES = 64 << 20
MAX_FILLED_STRINGS = 1024
_MAX_RANK = 64  # NumPy's; TensorFlow allows 254
_FIELDS = {
    tf.float32: "float_val",
    tf.float64: "double_val",
    tf.float16: "half_val",
    tf.bfloat16: "half_val",
    tf.int32: "int_val",
    tf.int16: "int_val",
    tf.int8: "int_val",
    tf.uint8: "int_val",
    tf.uint16: "int_val",
    tf.int64: "int64_val",
    tf.bool: "bool_val",
    tf.uint32: "uint32_val",
    tf.uint64: "uint64_val",
    tf.complex64: "scomplex_val",
    tf.complex128: "dcomplex_val",
    tf.string: "string_val",
}
_HALVES = (tf.float16, tf.bfloat16)
_PARTS = {tf.complex64: np.float32, tf.complex128: np.float64}


class Typed(NamedTuple):
    """An array and its TensorFlow type (an object array of bytes is a string tensor)."""

    array: np.ndarray
    dtype: tf.DType


def type_name(dtype: tf.DType) -> str:
    """Return TensorFlow's C++ name of a type: float for float32, double for float64."""
    names = {"float16": "half", "float32": "float", "float64": "double"}
    return names.get(dtype.name, dtype.name)


def from_proto(name: str, proto: Any, max_bytes: int = MAX_TENSOR_BYTES) -> np.ndarray:
    """Return the array of a `TensorProto`; strings become an object array of bytes.

    Raises:
        ServingError: INVALID_ARGUMENT if shape, type and values do not match, or the tensor would
            be larger than `max_bytes`.
    """
    try:
        return _array(proto, max_bytes)
    except (OverflowError, TypeError, ValueError) as error:
        reason = f": {error}" if isinstance(error, _TooLargeError) else ""
        raise invalid(f"tensor parsing error: {name}{reason}") from None


class _TooLargeError(ValueError):
    pass


def _array(proto: Any, max_bytes: int) -> np.ndarray:
    dtype = tf.as_dtype(proto.dtype)
    if dtype not in _FIELDS:
        raise ValueError
    values = getattr(proto, _FIELDS[dtype])
    shape = tuple(int(dim.size) for dim in proto.tensor_shape.dim)
    if proto.tensor_shape.unknown_rank and not shape:
        if len(values) != 1:
            raise ValueError
    elif proto.tensor_shape.unknown_rank or len(shape) > _MAX_RANK or min(shape, default=0) < 0:
        raise ValueError
    count = math.prod(shape)
    if count * max(dtype.size, 1) > max_bytes:
        raise _TooLargeError(f"shape {list(shape)} takes more than {max_bytes} bytes")
    if proto.tensor_content:
        return _from_content(proto.tensor_content, dtype, count).reshape(shape)
    return _filled(_elements(values, dtype), dtype, count).reshape(shape)


def _from_content(content: bytes, dtype: tf.DType, count: int) -> np.ndarray:
    if dtype == tf.string:
        return _strings_in(content, count)
    if len(content) != count * dtype.size:
        raise ValueError
    if dtype == tf.bool and content.translate(None, b"\0\1"):
        raise ValueError
    return np.frombuffer(content, dtype=dtype.as_numpy_dtype)


def _strings_in(content: bytes, count: int) -> np.ndarray:
    """Split the content of a string tensor: all lengths as varints, then all bytes."""
    if count > len(content):
        raise ValueError
    lengths, start = [], 0
    for _ in range(count):
        length = shift = 0
        while True:
            if start == len(content) or shift > 28:
                raise ValueError
            byte = content[start]
            length |= (byte & 0x7F) << shift
            start, shift = start + 1, shift + 7
            if byte < 0x80:
                break
        lengths.append(length)
    if start + sum(lengths) != len(content):
        raise ValueError
    array = np.empty(count, dtype=object)
    for index, length in enumerate(lengths):
        array[index] = content[start : start + length]
        start += length
    return array


def _elements(values: Any, dtype: tf.DType) -> np.ndarray:
    """Return the values of a tensor's field, of which complex numbers take two."""
    if dtype == tf.string:
        array = np.empty(len(values), dtype=object)
        array[:] = list(values)
        return array
    if dtype in _HALVES:  # the lower 16 bits, as in TensorFlow
        bits = np.array(values, dtype=np.int32).astype(np.uint16)
        return bits.view(dtype.as_numpy_dtype)
    if dtype in _PARTS:
        return np.array(values, dtype=_PARTS[dtype]).view(dtype.as_numpy_dtype)
    return np.array(values, dtype=dtype.as_numpy_dtype)


def _filled(values: np.ndarray, dtype: tf.DType, count: int) -> np.ndarray:
    """Fill up an array as TensorFlow does: the last value is repeated, no values are zeros."""
    if len(values) > count:
        raise ValueError
    if len(values) == count:
        return values
    if dtype == tf.string and count > max(MAX_FILLED_STRINGS, len(values)):
        raise _TooLargeError(f"expected {count} strings, got {len(values)}")
    if count * dtype.size > max(MAX_FILLED_BYTES, values.nbytes):
        raise _TooLargeError(f"expected {count} values, got {len(values)}")
    array = np.empty(count, dtype=values.dtype)
    array[: len(values)] = values
    array[len(values) :] = values[-1] if len(values) else b"" if dtype == tf.string else 0
    return array


def to_proto(array: Any, dtype: tf.DType, proto: Any) -> None:
    """Fill `proto` with typed fields such as `float_val`, as TF Serving responds."""
    array = np.asarray(array)
    proto.dtype = dtype.as_datatype_enum
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    field = _FIELDS.get(dtype)
    if field is None:
        proto.CopyFrom(tf.make_tensor_proto(array, dtype=dtype, shape=array.shape))
        return
    values = np.ascontiguousarray(array).ravel()
    if dtype in _HALVES:
        values = values.view(np.uint16)
    elif dtype in _PARTS:
        values = values.view(_PARTS[dtype])
    getattr(proto, field).extend(values.tolist())
