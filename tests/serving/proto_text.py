"""The declarations of .proto files, read from their text, to compare generated code with."""

from __future__ import annotations

import re
from typing import Any

_BLOCK = re.compile(r"(message|enum|oneof) (\w+) \{")
_FIELD = re.compile(r"(repeated )?(map<string, [\w.]+>|[\w.]+) (\w+) = (\d+);")
_VALUE = re.compile(r"(\w+) = (\d+);")
_PACKAGE = re.compile(r"[\w.]+\.")
_SCALARS = {
    name.removeprefix("TYPE_").lower(): name
    for name in ("TYPE_FLOAT", "TYPE_INT64", "TYPE_BOOL", "TYPE_STRING", "TYPE_BYTES")
}


def declared(text: str) -> set[tuple[str, str, int]]:
    """Return path, type and number of each field and enum value that a .proto text declares."""
    found: set[tuple[str, str, int]] = set()
    blocks: list[tuple[str, str]] = []
    for line in map(str.strip, text.splitlines()):
        path = ".".join(name for _, name in blocks)
        if block := _BLOCK.fullmatch(line):
            blocks.append((block[1], block[2]))
        elif line == "}":
            blocks.pop()
        elif field := _FIELD.fullmatch(line):
            kind = (field[1] or "") + _PACKAGE.sub("", field[2])
            found.add((f"{path}.{field[3]}", kind, int(field[4])))
        elif value := _VALUE.fullmatch(line):
            found.add((f"{path}.{value[1]}", "", int(value[2])))
        else:
            assert re.fullmatch(r"|//.*|(syntax|package|import)\b.*;", line), line
    return found


def generated(file: Any) -> set[tuple[str, str, int]]:
    """Return path, type and number of each field and enum value of a file's descriptor."""
    found: set[tuple[str, str, int]] = set()
    for enum in file.enum_types_by_name.values():
        found |= _values(enum, enum.name)
    for message in file.message_types_by_name.values():
        found |= _fields(message, message.name)
    return found


def _values(enum: Any, path: str) -> set[tuple[str, str, int]]:
    return {(f"{path}.{value.name}", "", value.number) for value in enum.values}


def _fields(message: Any, path: str) -> set[tuple[str, str, int]]:
    found: set[tuple[str, str, int]] = set()
    for enum in message.enum_types:
        found |= _values(enum, f"{path}.{enum.name}")
    for nested in message.nested_types:
        if not nested.GetOptions().map_entry:
            found |= _fields(nested, f"{path}.{nested.name}")
    for field in message.fields:
        group = f".{field.containing_oneof.name}" if field.containing_oneof else ""
        found.add((f"{path}{group}.{field.name}", _kind(field), field.number))
    return found


def _kind(field: Any) -> str:
    named = field.message_type or field.enum_type
    if field.message_type and field.message_type.GetOptions().map_entry:
        return f"map<string, {_kind(field.message_type.fields_by_name['value'])}>"
    scalars = {getattr(field, constant): name for name, constant in _SCALARS.items()}
    kind = named.name if named else scalars[field.type]
    return f"repeated {kind}" if field.is_repeated else kind
