"""JSON of sources, which is data: parsed within limits, and without two values of one key."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from regraft_core.runtime.errors import InputError

MAX_LINE_CHARACTERS = 1 << 20
MAX_DOCUMENT_BYTES = 1 << 30
_SHOWN_CHARACTERS = 80


def parse_json(text: str | bytes) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: it is not JSON, nested too deeply, or has a key twice in one object or a text
            that is not Unicode.
    """
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def check_text(text: str) -> None:
    """Refuse half of a surrogate pair, which JSON can have and no file name or UTF-8 has.

    Raises:
        ValueError: there is one.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("a text is not Unicode") from None


def read_json_object(file: Path, name: str) -> dict[str, Any]:
    """Return the JSON object of a file.

    Raises:
        InputError: the file is too large, or is not a JSON object.
    """
    size = file.stat().st_size
    if size > MAX_DOCUMENT_BYTES:
        raise InputError(f"{name}: expected at most {MAX_DOCUMENT_BYTES} bytes of JSON, got {size}")
    try:
        value = parse_json(file.read_bytes())
    except ValueError as error:
        raise InputError(f"{name}: expected a JSON object: {_one_line(error)}") from error
    if not isinstance(value, dict):
        raise InputError(f"{name}: expected a JSON object, got a {type(value).__name__}")
    return value


def json_lines(file: Path, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the number of each line of a file, without empty ones, and its JSON object.

    Raises:
        InputError: a line is too long or is not a JSON object.
    """
    with open(file, encoding="utf-8-sig") as opened:
        number = 0
        while line := _line(opened, name, number + 1):
            number += 1
            if not line.strip():
                continue
            try:
                value = parse_json(line)
            except ValueError as error:
                raise InputError(
                    f"{name}, line {number}: expected a JSON object: {_one_line(error)}"
                ) from error
            if not isinstance(value, dict):
                raise InputError(
                    f"{name}, line {number}: expected a JSON object, got "
                    f"{line.strip()[:_SHOWN_CHARACTERS]!r}"
                )
            yield number, value


def _line(opened: Any, name: str, number: int) -> str:
    try:
        line: str = opened.readline(MAX_LINE_CHARACTERS + 1)
    except UnicodeDecodeError as error:
        raise InputError(f"{name}: expected JSON lines in UTF-8: {error}") from error
    if len(line) > MAX_LINE_CHARACTERS:
        raise InputError(
            f"{name}, line {number}: expected at most {MAX_LINE_CHARACTERS} characters, got more"
        )
    return line


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        double = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {double[:_SHOWN_CHARACTERS]!r} is there twice")
    for key, value in pairs:
        if isinstance(value, str) and not value.isascii():
            check_text(value)
        if not key.isascii():
            check_text(key)
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
