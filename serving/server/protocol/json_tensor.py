"""REST bodies: JSON to tensors and tensors to JSON, in TF Serving's row and column forms."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from itertools import chain
from typing import Any, Literal

import numpy as np
import tensorflow as tf

from serving.server.protocol.signature import TensorSpec
from serving.server.protocol.status import Code, ServingError, invalid
from serving.server.protocol.tensors import Typed, type_name

Form = Literal["row", "column"]
MAX_NESTING = 64
_INT_RANGES = {"int32": 32, "int16": 32, "int8": 32, "uint8": 32, "int64": 64}
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]*={0,2}")


def parse_body(body: bytes) -> dict[str, Any]:
    """Read a request's body as a JSON object of bounded nesting.

    Bytes that are no UTF-8 survive in strings, as they do in TF Serving.

    Raises:
        ServingError: INVALID_ARGUMENT `JSON Parse error: ...`, or no object.
    """
    if not body:
        raise invalid("JSON Parse error: The document is empty")
    try:
        value = json.loads(body.decode("utf-8-sig", "surrogateescape"))
    except RecursionError:
        raise invalid("JSON Parse error: nested too deeply") from None
    except ValueError as error:
        raise invalid(f"JSON Parse error: {error}") from None
    if not isinstance(value, dict):
        raise invalid(f"JSON Value: {_shown(value)} Is not object")
    if _deeper_than(value, MAX_NESTING):
        raise invalid(f"JSON Parse error: nested deeper than {MAX_NESTING} levels")
    return value


def signature_name(document: Mapping[str, Any]) -> str:
    """Return the `signature_name` of a request, "" where there is none."""
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid(
            f"JSON Value: {_shown(document)} not formatted correctly. "
            "'signature_name' key must be a string value."
        )
    text_bytes(name)
    return name


def read_inputs(
    document: Mapping[str, Any], specs: Mapping[str, TensorSpec]
) -> tuple[dict[str, Typed], Form]:
    """Read the tensors of a predict request by the signature's inputs.

    Raises:
        ServingError: INVALID_ARGUMENT where the JSON does not fit, UNIMPLEMENTED for a type that
            JSON cannot carry.
    """
    if "instances" in document:
        if "inputs" in document:
            raise invalid(
                f"JSON Value: {_shown(document)} Not formatted correctly expecting only one of "
                "'inputs' or 'instances' keys to exist "
            )
        instances = document["instances"]
        if not isinstance(instances, list):
            raise invalid(
                f"JSON Value: {_shown(document)} Expecting 'instances' to be an list/array"
            )
        if not instances:
            raise invalid(f"JSON Value: {_shown(document)} No values in 'instances' array")
        return _read_rows(instances, specs), "row"
    if "inputs" in document:
        return _read_columns(document["inputs"], specs), "column"
    raise invalid("Missing 'inputs' or 'instances' key")


def write_outputs(outputs: Mapping[str, Typed], form: Form) -> bytes:
    """Write outputs as `predictions` (row form) or `outputs` (column form).

    Raises:
        ServingError: INVALID_ARGUMENT for a scalar or unequal batch sizes in row form, or a type
            that JSON cannot carry.
    """
    lists = {alias: _listed(alias, outputs[alias]) for alias in sorted(outputs)}
    if form == "column":
        value = next(iter(lists.values())) if len(lists) == 1 else lists
        return dump({"outputs": value})
    size = -1
    for alias, typed in sorted(outputs.items()):
        if typed.array.ndim == 0:
            raise invalid(f"Tensor name: {alias} has no shape information ")
        if size >= 0 and len(typed.array) != size:
            raise invalid(
                f"Tensor name: {alias} has inconsistent batch size: {len(typed.array)} "
                f"expecting: {size}"
            )
        size = len(typed.array)
    if len(lists) == 1:
        return dump({"predictions": next(iter(lists.values()))})
    rows = [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]
    return dump({"predictions": rows})


def dump(value: Any) -> bytes:
    """Write JSON; NaN and infinities unquoted, bytes that were no UTF-8 as they came."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogateescape")


def is_base64(value: Any) -> bool:
    """Tell whether a JSON value is `{"b64": "<text>"}`."""
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str)


def decode_base64(value: Mapping[str, str]) -> bytes:
    """Return the bytes of a `{"b64": ...}` object; padding may be missing."""
    text = value["b64"]
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        pass
    text = text.strip()
    if not _BASE64.fullmatch(text):
        raise invalid("Unable to base64 decode")
    text = text.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise invalid("Unable to base64 decode") from None


def text_bytes(text: str) -> bytes:
    """Return the bytes of a JSON string.

    Raises:
        ServingError: INVALID_ARGUMENT for half of a surrogate pair.
    """
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise invalid("JSON Parse error: The surrogate pair in string is invalid.") from None


def decimal(value: float, single: bool) -> float:
    """Return the float that prints as the shortest text of a float32 (`single`) or float64."""
    return float(str(np.float32(value))) if single else value


def _read_rows(instances: list[Any], specs: Mapping[str, TensorSpec]) -> dict[str, Typed]:
    if not isinstance(instances[0], dict) and len(specs) > 1:
        raise invalid(
            "instances is a plain list, but expecting list of objects as multiple input tensors "
            "required as per tensorinfo_map"
        )
    named = isinstance(instances[0], dict) and not is_base64(instances[0])
    columns: dict[str, list[Any]] = {name: [] for name in specs}
    only = next(iter(specs))
    first: dict[str, tuple[int, ...]] = {}
    for index, item in enumerate(instances):
        is_object = isinstance(item, dict) and not is_base64(item)
        if named and not is_object:
            raise invalid(f"Expecting object but got list at item {index} of input list")
        if not named and is_object:
            raise invalid(f"Expecting value/list but got object at item {index} of input list")
        where = f"Failed to process element: {index}"
        for name, value in item.items() if named else ((only, item),):
            key = f" key: {name}" if named else ""
            try:
                if name not in specs:
                    raise invalid(f"JSON object: does not have named input: {name}")
                columns[name].append(_read_element(value, specs[name], name, first))
            except ServingError as error:
                raise ServingError(
                    error.code if error.code is Code.UNIMPLEMENTED else Code.INVALID_ARGUMENT,
                    f"{where}{key} of 'instances' list. Error: {error}",
                ) from None
        if named and set(item) != set(specs):
            raise invalid(
                f"{where} of 'instances' list. JSON object: {_shown(item)} keys must be equal "
                f"to: {','.join(sorted(specs))}"
            )
    return {
        name: Typed(_stack(parts, specs[name].dtype), specs[name].dtype)
        for name, parts in columns.items()
    }


def _read_element(
    value: Any, spec: TensorSpec, name: str, first: dict[str, tuple[int, ...]]
) -> np.ndarray:
    array = to_array(value, spec.dtype)
    wanted = first.setdefault(name, array.shape)
    if array.size != int(np.prod(wanted)):
        raise invalid(f"Expecting tensor size: {int(np.prod(wanted))} but got: {array.size}")
    if array.shape != wanted:
        raise invalid(f"Expecting shape {_shape(wanted)} but got: {_shape(array.shape)}")
    return array


def _stack(parts: list[np.ndarray], dtype: tf.DType) -> np.ndarray:
    stacked = np.empty((len(parts), *parts[0].shape), dtype=_numpy_type(dtype))
    for index, part in enumerate(parts):
        stacked[index] = part if part.ndim else part[()]
    return stacked


def _read_columns(value: Any, specs: Mapping[str, TensorSpec]) -> dict[str, Typed]:
    if not isinstance(value, dict) or is_base64(value):
        if len(specs) > 1:
            raise invalid(
                "inputs is a plain value/list, but expecting an object as multiple input tensors "
                "required as per tensorinfo_map"
            )
        name, spec = next(iter(specs.items()))
        return {name: Typed(to_array(value, spec.dtype), spec.dtype)}
    arrays = {}
    for name, spec in specs.items():
        if name not in value:
            raise invalid(f"Missing named input: {name} in 'inputs' object.")
        arrays[name] = Typed(to_array(value[name], spec.dtype), spec.dtype)
    return arrays


def to_array(value: Any, dtype: tf.DType) -> np.ndarray:
    """Turn a JSON value into an array of `dtype`; its shape is that of the first elements."""
    shape = []
    probe = value
    while isinstance(probe, list):
        shape.append(len(probe))
        probe = probe[0] if probe else None
    flat = [value]
    for size in shape:
        if not all(type(part) is list and len(part) == size for part in flat):
            _raise_first_error(value, 0, shape, dtype)
        flat = list(chain.from_iterable(flat))
    array = np.empty(len(flat), dtype=object if dtype == tf.string else _numpy_type(dtype))
    if not _fill(array, flat, dtype):
        _raise_first_error(value, 0, shape, dtype)
    return array.reshape(shape)


def _fill(array: np.ndarray, flat: list[Any], dtype: tf.DType) -> bool:
    """Fill `array` from values of the right types; False where one is not."""
    kinds = set(map(type, flat))
    if dtype == tf.string:
        if not kinds <= {str, dict} or any(type(v) is dict and not is_base64(v) for v in flat):
            return False
        for index, value in enumerate(flat):
            array[index] = text_bytes(value) if type(value) is str else decode_base64(value)
        return True
    allowed = {bool} if dtype == tf.bool else {int, float} if dtype.is_floating else {int}
    if not kinds <= allowed or dtype.name not in _numeric_types():
        return False
    try:
        with np.errstate(over="ignore"):
            array[:] = flat
    except OverflowError:
        return False
    return not (dtype.is_integer and not dtype.is_unsigned and not _in_range(flat, dtype))


def _in_range(flat: list[int], dtype: tf.DType) -> bool:
    bits = _INT_RANGES.get(dtype.name)
    return bits is None or not flat or (-(1 << bits - 1) <= min(flat) <= max(flat) < 1 << bits - 1)


def _numeric_types() -> tuple[str, ...]:
    return ("float32", "float64", "int32", "int16", "int8", "uint8", "int64", "bool",
            "uint32", "uint64")  # fmt: skip


def _raise_first_error(value: Any, level: int, shape: list[int], dtype: tf.DType) -> None:
    """Walk the value in order and raise what is wrong with it first."""
    if not isinstance(value, list):
        if level != len(shape):
            raise invalid(
                f"JSON Value: {_shown(value)} found at incorrect level: {level + 1} in the JSON "
                f"DOM. Expected at level: {len(shape)}"
            )
        _check_leaf(value, dtype)
    elif level >= len(shape):
        raise invalid(f"Encountered list at unexpected level: {level} expected < {len(shape)}")
    elif len(value) != shape[level]:
        raise invalid(
            f"Encountered list at unexpected size: {len(value)} at level: {level} expected size: "
            f"{shape[level]}"
        )
    else:
        for part in value:
            _raise_first_error(part, level + 1, shape, dtype)
    if level == 0:
        raise invalid(f"JSON Value: {_shown(value)} is not of expected type: {type_name(dtype)}")


def _check_leaf(value: Any, dtype: tf.DType) -> None:
    if dtype == tf.string and isinstance(value, dict):
        if not is_base64(value):
            raise invalid(f"JSON Value: {_shown(value)} not formatted correctly for base64 data")
        decode_base64(value)
        return
    if isinstance(value, dict):
        raise _type_error(value, dtype)
    if dtype != tf.string and dtype.name not in _numeric_types():
        raise ServingError(
            Code.UNIMPLEMENTED,
            f"Conversion of JSON Value: {_shown(value)} to type: {type_name(dtype)}",
        )
    array = np.empty(1, dtype=object if dtype == tf.string else _numpy_type(dtype))
    if not _fill(array, [value], dtype):
        raise _type_error(value, dtype)


def _type_error(value: Any, dtype: tf.DType) -> ServingError:
    kinds = {dict: "Object", list: "Array", str: "String", type(None): "Null"}
    kind = str(value) if isinstance(value, bool) else kinds.get(type(value), "Number")
    return invalid(
        f"JSON Value: {_shown(value)} Type: {kind} is not of expected type: {type_name(dtype)}"
    )


def _numpy_type(dtype: tf.DType) -> Any:
    return object if dtype == tf.string else dtype.as_numpy_dtype


def _listed(alias: str, typed: Typed) -> Any:
    """Return a tensor as nested lists of JSON values."""
    array, dtype = typed
    if dtype == tf.string:
        wrap = _b64_object if alias.endswith("_bytes") else _text
        flat: list[Any] = [wrap(value) for value in array.ravel().tolist()]
    elif dtype in (tf.float32, tf.float64):
        flat = array.ravel().tolist()
        if dtype == tf.float32:
            flat = [float(text) for text in map(str, array.ravel())]
    elif dtype.name in _numeric_types():
        flat = array.ravel().tolist()
    else:
        raise invalid(f"Failed to write JSON value for tensor type: {type_name(dtype)}")
    return _nest(flat, array.shape)


def _nest(flat: list[Any], shape: tuple[int, ...]) -> Any:
    if not shape:
        return flat[0]
    for size in reversed(shape[1:]):
        step = max(size, 1)
        count = len(flat) // step if size else int(np.prod(shape[: shape.index(0)]))
        flat = [flat[i * size : (i + 1) * size] for i in range(count)]
    return flat


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "surrogateescape")


def _b64_object(value: bytes | str) -> dict[str, str]:
    data = value.encode() if isinstance(value, str) else value
    return {"b64": base64.b64encode(data).decode("ascii")}


def _shape(shape: tuple[int, ...]) -> str:
    return f"[{','.join(map(str, shape))}]"


def _deeper_than(value: Any, limit: int) -> bool:
    layer = [value]
    for _ in range(limit):
        inner: list[Any] = []
        for item in layer:
            if isinstance(item, dict):
                inner.extend(v for v in item.values() if isinstance(v, dict | list))
            else:
                inner.extend(v for v in item if isinstance(v, dict | list))
        if not inner:
            return False
        layer = inner
    return True


def _shown(value: Any) -> str:
    """Return the beginning of a value's JSON for a message, cheaply for huge values."""
    if isinstance(value, list) and len(value) > 32:
        value = value[:32]
    if isinstance(value, str):
        value = value[:256]
    if isinstance(value, dict):
        value = {k: (v if not isinstance(v, list | dict | str) else "...") for k, v in
                 list(value.items())[:16]}  # fmt: skip
    return json.dumps(value)[:256]
