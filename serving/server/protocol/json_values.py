"""JSON of REST bodies: bounded parsing, strings and base64 as bytes, and values in errors."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from serving.server.protocol.status import invalid

MAX_NESTING = 64
_TYPE_NAMES = {dict: "Object", list: "Array", str: "String", type(None): "Null"}


def parse_body(body: bytes) -> dict[str, Any]:
    """Parse a request's body as a JSON object of bounded nesting.

    Bytes that are not UTF-8 are kept in strings, as TF Serving does.

    Raises:
        ServingError: INVALID_ARGUMENT `JSON Parse error: ...`, or the value is not an object.
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
        raise invalid(f"JSON Value: {shown(value)} Is not object")
    if _deeper_than(value, MAX_NESTING):
        raise invalid(f"JSON Parse error: nested deeper than {MAX_NESTING} levels")
    return value


def signature_name(document: Mapping[str, Any]) -> str:
    """Return the `signature_name` of a request, "" if it has none."""
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid(
            f"JSON Value: {shown(document)} not formatted correctly. "
            "'signature_name' key must be a string value."
        )
    text_bytes(name)
    return name


def dump(value: Any) -> bytes:
    """Write JSON; NaN and infinities unquoted, bytes that were not UTF-8 unchanged."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogateescape")


def is_base64(value: Any) -> bool:
    """Return whether a JSON value is `{"b64": "<text>"}`."""
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str)


def decode_base64(value: Mapping[str, str]) -> bytes:
    """Return the bytes of a `{"b64": ...}` object; padding is optional."""
    text = value["b64"].strip().rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        raise invalid("Unable to base64 decode") from None


def encode_base64(data: bytes) -> dict[str, str]:
    """Return the `{"b64": ...}` object of bytes."""
    return {"b64": base64.b64encode(data).decode("ascii")}


def text_bytes(text: str) -> bytes:
    """Return the bytes of a JSON string.

    Raises:
        ServingError: INVALID_ARGUMENT for half of a surrogate pair.
    """
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise invalid("JSON Parse error: The surrogate pair in string is invalid.") from None


def shortest(value: float) -> float:
    """Return the float whose text is the shortest that identifies `value` as a float32."""
    return float(str(np.float32(value)))


def type_of(value: Any) -> str:
    """Return the JSON type of a value, as TF Serving names it in errors."""
    if isinstance(value, bool):
        return str(value)
    return _TYPE_NAMES.get(type(value), "Number")


def shown(value: Any) -> str:
    """Return the beginning of a value's JSON for an error; cheap for huge values."""
    if isinstance(value, list):
        value = value[:32]
    elif isinstance(value, str):
        value = value[:256]
    elif isinstance(value, dict):
        value = {
            key: "..." if isinstance(content, list | dict | str) else content
            for key, content in list(value.items())[:16]
        }
    return json.dumps(value)[:256]


def _deeper_than(value: Any, limit: int) -> bool:
    layer = [value]
    for _ in range(limit):
        layer = [
            part
            for item in layer
            for part in (item.values() if isinstance(item, dict) else item)
            if isinstance(part, dict | list)
        ]
        if not layer:
            return False
    return True
