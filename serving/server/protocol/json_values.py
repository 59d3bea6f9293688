"""JSON of REST bodies: bounded parsing, strings and base64 as bytes, and values in errors."""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from serving.server.protocol.status import invalid

MAX_NESTING = 64
# Bytes of a parsed value in Python, by the character that shows that there is one.
_VALUE_BYTES = {b",": 48, b":": 64, b"[": 96, b"{": 200, b'"': 32}
_DIGITS_AS_ZERO = bytes.maketrans(b"123456789E", b"000000000e")
_OTHER_CONSTANT = re.compile(r'("(?:[^"\\]|\\.)*")|-?Inf(?:inity)?\b|-NaN\b', re.DOTALL)
_SPACES = str.maketrans("", "", " \t\n\v\f\r")
_BASE64 = re.compile(r"[A-Za-z0-9+/]*")
_TYPE_NAMES = {dict: "Object", list: "Array", str: "String", type(None): "Null"}


def parsed_size(body: bytes | bytearray) -> int:
    """Return an upper estimate of the bytes that a body takes while it is parsed.

    A character outside Latin-1 makes a whole string two to four times as large.
    """
    copies = 2 if body.isascii() else 6
    strings = 6 if b"\\u" in body else copies
    return (copies + strings) * len(body) + sum(
        body.count(mark) * size for mark, size in _VALUE_BYTES.items()
    )


def parse_body(body: bytes | bytearray) -> dict[str, Any]:
    """Parse a request's body as a JSON object of bounded nesting.

    Bytes that are not UTF-8 are kept in strings, as TF Serving does. Of equal keys, the first
    counts.

    Raises:
        ServingError: INVALID_ARGUMENT `JSON Parse error: ...`, or the value is not an object.
    """
    if not body:
        raise invalid("JSON Parse error: The document is empty")
    try:
        value = _load(body)
    except RecursionError:
        raise invalid("JSON Parse error: nested too deeply") from None
    except ValueError as error:
        raise invalid(f"JSON Parse error: {error}") from None
    if not isinstance(value, dict):
        raise invalid(f"JSON Value: {shown(value)} Is not object")
    if _deeper_than(value, MAX_NESTING):
        raise invalid(f"JSON Parse error: nested deeper than {MAX_NESTING} levels")
    return value


def _load(body: bytes | bytearray) -> Any:
    text = body.decode("utf-8-sig", "surrogateescape")
    options: dict[str, Any] = {"object_pairs_hook": _first_of_equal_keys}
    if _may_be_too_large(body):  # the hooks are slow for many numbers
        options |= {"parse_float": _finite, "parse_int": _not_too_large}
    try:
        return json.loads(text, **options)
    except json.JSONDecodeError:
        if "Inf" not in text and "-NaN" not in text:
            raise
        return json.loads(_OTHER_CONSTANT.sub(_constant, text), **options)


def _may_be_too_large(body: bytes | bytearray) -> bool:
    """Return whether a body contains what an exponent or a number of over 300 digits looks like."""
    plain = body.translate(_DIGITS_AS_ZERO, b"+")
    return b"e000" in plain or b"0" * 300 in plain


def _first_of_equal_keys(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    return found if len(found) == len(pairs) else dict(reversed(pairs))


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        _reject_number()
    return value


def _not_too_large(text: str) -> int:
    if len(text) < 309:
        return int(text)
    _finite(text)
    return int(text)


def _reject_number() -> NoReturn:
    raise ValueError("Number too big to be stored in double.")


def _constant(match: re.Match[str]) -> str:
    """Return a constant as Python's parser reads it; strings are unchanged."""
    if match[1] is not None:
        return match[1]
    if match[0] == "-NaN":
        return "NaN"
    return "-Infinity" if match[0].startswith("-") else "Infinity"


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
    try:
        return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half of a surrogate pair, from an escape sequence
        return json.dumps(value).encode()


def is_base64(value: Any) -> bool:
    """Return whether a JSON value is `{"b64": "<text>"}`."""
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str)


def decode_base64(value: Mapping[str, str]) -> bytes:
    """Return the bytes of a `{"b64": ...}` object.

    As in TF Serving, white space is ignored, padding may be missing but not incomplete, a dot is
    padding too, and the web-safe alphabet is not accepted.
    """
    text = value["b64"]
    if len(text) % 4 == 0 and not text.endswith("==="):
        with contextlib.suppress(ValueError):
            return binascii.a2b_base64(text, strict_mode=True)
    text = text.translate(_SPACES)
    data = text.rstrip("=.")
    missing = -len(data) % 4
    if len(text) - len(data) not in (0, missing) or missing == 3 or not _BASE64.fullmatch(data):
        raise invalid("Unable to base64 decode")
    return base64.b64decode(data + "=" * missing)


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
