"""REST bodies of predict: JSON to tensors and back, in TF Serving's row and column forms.

Values are converted as a whole first; only if that fails, they are visited one by one for the error
that TF Serving would report. Both passes are needed: a loop in Python over each pixel of an image
takes longer than the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any, Literal, NoReturn

import numpy as np
import tensorflow as tf

from serving.server.protocol.json_values import (
    decode_base64,
    dump,
    encode_base64,
    is_base64,
    shown,
    text_bytes,
    type_of,
)
from serving.server.protocol.signature import TensorSpec
from serving.server.protocol.status import Code, ServingError, invalid
from serving.server.protocol.tensors import Typed, type_name

Form = Literal["row", "column"]
_NUMERIC = ("float32", "float64", "int32", "int16", "int8", "uint8", "int64", "bool", "uint32",
            "uint64")  # fmt: skip


def read_inputs(
    document: Mapping[str, Any], specs: Mapping[str, TensorSpec]
) -> tuple[dict[str, Typed], Form]:
    """Read the tensors of a predict request by the signature's inputs.

    Raises:
        ServingError: INVALID_ARGUMENT if the JSON does not match, UNIMPLEMENTED for a type that
            JSON cannot represent.
    """
    if "instances" in document:
        if "inputs" in document:
            raise invalid(
                f"JSON Value: {shown(document)} Not formatted correctly expecting only one of "
                "'inputs' or 'instances' keys to exist "
            )
        instances = document["instances"]
        if not isinstance(instances, list):
            raise invalid(
                f"JSON Value: {shown(document)} Expecting 'instances' to be an list/array"
            )
        if not instances:
            raise invalid(f"JSON Value: {shown(document)} No values in 'instances' array")
        return _read_rows(instances, specs), "row"
    if "inputs" in document:
        return _read_columns(document["inputs"], specs), "column"
    raise invalid("Missing 'inputs' or 'instances' key")


def write_outputs(outputs: Mapping[str, Typed], form: Form) -> bytes:
    """Write outputs as `predictions` (row form) or `outputs` (column form).

    Raises:
        ServingError: INVALID_ARGUMENT for a scalar or unequal batch sizes in row form, or a type
            that JSON cannot represent.
    """
    lists = {alias: _listed(alias, outputs[alias]) for alias in sorted(outputs)}
    if form == "column":
        return dump({"outputs": next(iter(lists.values())) if len(lists) == 1 else lists})
    size = -1
    for alias in lists:
        array = outputs[alias].array
        if array.ndim == 0:
            raise invalid(f"Tensor name: {alias} has no shape information ")
        if size not in (-1, len(array)):
            raise invalid(
                f"Tensor name: {alias} has inconsistent batch size: {len(array)} expecting: {size}"
            )
        size = len(array)
    if len(lists) == 1:
        return dump({"predictions": next(iter(lists.values()))})
    rows = [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]
    return dump({"predictions": rows})


def _read_rows(instances: list[Any], specs: Mapping[str, TensorSpec]) -> dict[str, Typed]:
    named = _is_object(instances[0])
    if not named and len(specs) > 1:
        raise _several_inputs("instances is a plain list, but expecting list of objects", specs)
    columns: dict[str, list[np.ndarray]] = {name: [] for name in specs}
    for index, item in enumerate(instances):
        if _is_object(item) != named:
            expected = "object but got list" if named else "value/list but got object"
            raise invalid(f"Expecting {expected} at item {index} of input list")
        prefix = f"Failed to process element: {index}"
        for name, value in item.items() if named else zip(specs, [item], strict=True):
            try:
                _add_element(value, name, specs, columns)
            except ServingError as error:
                key = f" key: {name}" if named else ""
                # As in TF Serving, the status is that of the list, the text has the element's.
                raise invalid(f"{prefix}{key} of 'instances' list. Error: {error}") from None
        if named and set(item) != set(specs):
            raise invalid(
                f"{prefix} of 'instances' list. JSON object: {shown(item)} keys must be equal "
                f"to: {','.join(sorted(specs))}"
            )
    return {name: Typed(np.stack(parts), specs[name].dtype) for name, parts in columns.items()}


def _several_inputs(text: str, specs: Mapping[str, TensorSpec]) -> ServingError:
    """Return the error of a bare value for several inputs; TF Serving's differs for texts."""
    if all(spec.dtype == tf.string for spec in specs.values()):
        return invalid(f"input size does not match signature: 1!={len(specs)}")
    return invalid(f"{text} as multiple input tensors required as per tensorinfo_map")


def _is_object(value: Any) -> bool:
    return isinstance(value, dict) and not is_base64(value)


def _add_element(
    value: Any, name: str, specs: Mapping[str, TensorSpec], columns: dict[str, list[np.ndarray]]
) -> None:
    """Append one row of an input, which must have the shape of the first row."""
    if name not in specs:
        raise invalid(f"JSON object: does not have named input: {name}")
    array = to_array(value, specs[name].dtype)
    first = columns[name][0] if columns[name] else array
    if array.size != first.size:
        raise invalid(f"Expecting tensor size: {first.size} but got: {array.size}")
    if array.shape != first.shape:
        expected, received = (",".join(map(str, one.shape)) for one in (first, array))
        raise invalid(f"Expecting shape [{expected}] but got: [{received}]")
    columns[name].append(array)


def _read_columns(value: Any, specs: Mapping[str, TensorSpec]) -> dict[str, Typed]:
    if not _is_object(value):
        if len(specs) > 1:
            raise _several_inputs("inputs is a plain value/list, but expecting an object", specs)
        value = dict.fromkeys(specs, value)
    columns = {}
    for name, spec in specs.items():
        if name not in value:
            raise invalid(f"Missing named input: {name} in 'inputs' object.")
        columns[name] = Typed(to_array(value[name], spec.dtype), spec.dtype)
    return columns


def to_array(value: Any, dtype: tf.DType) -> np.ndarray:
    """Convert a JSON value to an array of `dtype`; its shape is that of the first elements."""
    shape, first = [], value
    while isinstance(first, list):
        shape.append(len(first))
        first = first[0] if first else None
    flat = _flatten(value, shape)
    array = None if flat is None else _convert(flat, dtype)
    if array is None:
        _raise_first_error(value, 0, shape, dtype)
    return array.reshape(shape)


def _flatten(value: Any, shape: list[int]) -> list[Any] | None:
    """Return the elements of nested lists, None unless the lists have this shape."""
    flat = [value]
    for size in shape:
        if not all(type(part) is list and len(part) == size for part in flat):
            return None
        flat = list(chain.from_iterable(flat))
    return flat


def _convert(flat: list[Any], dtype: tf.DType) -> np.ndarray | None:
    """Return an array of values that all have the JSON type of `dtype`, None otherwise."""
    types = set(map(type, flat))
    if dtype == tf.string:
        if not types <= {str, dict} or any(map(_is_object, flat)):
            return None
        array = np.empty(len(flat), dtype=object)
        array[:] = [text_bytes(v) if type(v) is str else decode_base64(v) for v in flat]
        return array
    allowed = {bool} if dtype == tf.bool else {int, float} if dtype.is_floating else {int}
    if not types <= allowed or dtype.name not in _NUMERIC:
        return None
    if dtype.is_integer and flat and not dtype.min <= min(flat) <= max(flat) <= dtype.max:
        return None
    try:
        with np.errstate(over="ignore"):
            return np.array(flat, dtype=dtype.as_numpy_dtype)
    except OverflowError:
        return None


def _raise_first_error(value: Any, level: int, shape: list[int], dtype: tf.DType) -> NoReturn:
    """Raise the error of the first element that does not match."""
    _check(value, level, shape, dtype)
    raise invalid(f"JSON Value: {shown(value)} is not of expected type: {type_name(dtype)}")


def _check(value: Any, level: int, shape: list[int], dtype: tf.DType) -> None:
    if not isinstance(value, list):
        if level != len(shape):
            raise invalid(
                f"JSON Value: {shown(value)} found at incorrect level: {level + 1} in the JSON "
                f"DOM. Expected at level: {len(shape)}"
            )
        _check_element(value, dtype)
    elif level >= len(shape):
        raise invalid(f"Encountered list at unexpected level: {level} expected < {len(shape)}")
    elif len(value) != shape[level]:
        raise invalid(
            f"Encountered list at unexpected size: {len(value)} at level: {level} expected size: "
            f"{shape[level]}"
        )
    else:
        for part in value:
            _check(part, level + 1, shape, dtype)


def _check_element(value: Any, dtype: tf.DType) -> None:
    if dtype == tf.string and _is_object(value):
        raise invalid(f"JSON Value: {shown(value)} not formatted correctly for base64 data")
    if dtype != tf.string and dtype.name not in _NUMERIC and not isinstance(value, dict):
        raise ServingError(
            Code.UNIMPLEMENTED,
            f"Conversion of JSON Value: {shown(value)} to type: {type_name(dtype)}",
        )
    if _convert([value], dtype) is None:
        raise invalid(
            f"JSON Value: {shown(value)} Type: {type_of(value)} is not of expected type: "
            f"{type_name(dtype)}"
        )


def _listed(alias: str, typed: Typed) -> Any:
    """Return a tensor as nested lists of JSON values."""
    array, dtype = typed
    if dtype == tf.string:
        encode = encode_base64 if alias.endswith("_bytes") else _text
        return np.vectorize(encode, otypes=[object])(array).tolist()
    if dtype.name not in _NUMERIC:
        raise invalid(f"Failed to write JSON value for tensor type: {type_name(dtype)}")
    if dtype == tf.float32:  # as the shortest text that identifies it
        array = array.astype(str).astype(np.float64)
    return array.tolist()


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")
