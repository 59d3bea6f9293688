"""Builds options from plain values; an invalid one is an error of one line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from regraft_core.runtime.errors import InputError, unknown_name

T = TypeVar("T", bound=BaseModel)
_DURATION = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)([smh])")
_UNIT_S = {"s": 1.0, "m": 60.0, "h": 3600.0}


def parse_duration(text: str) -> float:
    """Return the seconds of a time such as 90s, 10m or 1.5h.

    Raises:
        ValueError: it is not a number above 0 with its unit.
    """
    found = _DURATION.fullmatch(text)
    seconds = float(found[1]) * _UNIT_S[found[2]] if found else 0.0
    if not seconds:
        raise ValueError("expected a time with its unit, such as 90s, 10m or 1.5h")
    return seconds


def parse_options(kind: type[T], **values: Any) -> T:
    """Build `kind` from `values`.

    Raises:
        InputError: a value is out of range or of another type, or a name is unknown.
    """
    try:
        return kind(**values)
    except ValidationError as error:
        raise as_input_error(kind, error) from error


def select_options(kind: type[T], values: Mapping[str, Any]) -> T:
    """Build `kind` from those of `values` that it has fields for, such as a component's arguments.

    Raises:
        InputError: as `parse_options`.
    """
    names = kind.model_fields
    return parse_options(kind, **{name: values[name] for name in names if name in values})


def as_input_error(kind: type[BaseModel], error: ValidationError) -> InputError:
    """Return the first error of a validation as one line: what was expected and received.

    A value that may have several types has an error for each of them.
    """
    first, *others = error.errors()
    name = str(first["loc"][0]) if first["loc"] else kind.__name__
    if first["type"] == "extra_forbidden":
        return unknown_name("option", name, kind.model_fields)
    if first["type"] == "missing":
        return InputError(f"{name}: expected a value, got none")
    if first["type"] == "literal_error":
        expected = first.get("ctx", {}).get("expected", "")
        return InputError(f"{name}: expected {expected}, got {first['input']!r}")
    if first["type"] == "value_error":
        return InputError(f"{name}: {first['ctx']['error']}, got {first['input']!r}")
    same = [one for one in others if one["loc"][:1] == first["loc"][:1]
            and one["input"] == first["input"]]  # fmt: skip
    expected = [one["msg"].removeprefix("Input should be ") for one in (first, *same)]
    message = " or ".join(expected).replace("a valid array", "a list")
    return InputError(f"{name}: expected {message}, got {first['input']!r}")
