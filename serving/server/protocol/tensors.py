"""`TensorProto` to NumPy arrays and back, with limits and strict checks."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from serving.server.protocol.status import Code, ServingError

MAX_TENSOR_BYTES = 1 << 30
_FIELDS = {
    tf.float32: "float_val",
    tf.float64: "double_val",
    tf.int32: "int_val",
    tf.int16: "int_val",
    tf.int8: "int_val",
    tf.uint8: "int_val",
    tf.uint16: "int_val",
    tf.int64: "int64_val",
    tf.bool: "bool_val",
    tf.uint32: "uint32_val",
    tf.uint64: "uint64_val",
    tf.string: "string_val",
}


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
        ServingError: INVALID_ARGUMENT if shape, type and values do not match,
            RESOURCE_EXHAUSTED if the tensor would be larger than `max_bytes`.
    """
    broken = ServingError(Code.INVALID_ARGUMENT, f"tensor parsing error: {name}")
    try:
        dtype = tf.as_dtype(proto.dtype)
    except TypeError:
        raise broken from None
    if proto.tensor_shape.unknown_rank or dtype not in _FIELDS:
        return _by_tensorflow(proto, broken)
    shape = tuple(int(dim.size) for dim in proto.tensor_shape.dim)
    if any(size < 0 for size in shape):
        raise broken
    count = math.prod(shape)
    if count * max(dtype.size, 1) > max_bytes:
        raise ServingError(
            Code.RESOURCE_EXHAUSTED,
            f"tensor {name} of shape {list(shape)} is larger than {max_bytes} bytes",
        )
    if proto.tensor_content:
        if dtype == tf.string or len(proto.tensor_content) != count * dtype.size:
            raise broken
        return np.frombuffer(proto.tensor_content, dtype=dtype.as_numpy_dtype).reshape(shape)
    values = getattr(proto, _FIELDS[dtype])
    return _filled(values, dtype, shape, count, broken)


def _filled(
    values: Any, dtype: tf.DType, shape: tuple[int, ...], count: int, broken: ServingError
) -> np.ndarray:
    """Fill an array as TensorFlow does: the last value is repeated, no values are zeros."""
    if len(values) > count:
        raise broken
    numpy_type = object if dtype == tf.string else dtype.as_numpy_dtype
    array = np.empty(count, dtype=numpy_type)
    try:
        array[: len(values)] = (
            list(values) if dtype == tf.string else np.array(values, dtype=numpy_type)
        )
    except (OverflowError, ValueError):
        raise broken from None
    array[len(values) :] = values[-1] if len(values) else b"" if dtype == tf.string else 0
    return array.reshape(shape)


def _by_tensorflow(proto: Any, broken: ServingError) -> np.ndarray:
    """Return the array of a type without a field in `_FIELDS`."""
    if proto.tensor_shape.unknown_rank or any(dim.size < 0 for dim in proto.tensor_shape.dim):
        raise broken
    try:
        return tf.make_ndarray(proto)
    except (TypeError, ValueError):
        raise broken from None


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
    getattr(proto, field).extend(array.ravel().tolist())
