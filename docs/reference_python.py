"""Writes the reference of the Python API from the docstrings of `regraft` and `regraft_client`."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import regraft
import regraft_client

HEADINGS = ("Args", "Attributes", "Returns", "Yields", "Raises")
WIDTH = 88
ENTRY = re.compile(r"(?P<name>\*{0,2}[\w.`, *]+?)(?: \([^)]*\))?: (?P<text>.*)", re.DOTALL)


@dataclass
class Docstring:
    """The text of a docstring, and its sections such as `Args`, each with its entries."""

    text: str
    sections: dict[str, list[str]] = field(default_factory=dict)


def python_page(note: str) -> str:
    """Return the page of the public names of both packages."""
    lines = [note, "# Python API", ""]
    for module in (regraft, regraft_client):
        lines += module_lines(module)
    return "\n".join(lines)


def module_lines(module: ModuleType) -> Iterator[str]:
    """Yield a section with the names in the module's `__all__`, in that order."""
    yield from (f"## {module.__name__}", "")
    yield from (inspect.cleandoc(module.__doc__ or ""), "")
    for name in getattr(module, "__all__", ()):
        value = getattr(module, name)
        yield from (f"### `{module.__name__}.{name}`", "")
        if inspect.isclass(value):
            yield from _class_lines(name, value)
        elif callable(value):
            yield from _function_lines(name, value)
        else:
            yield from (f"`{value!r}`", "")


def parse_docstring(text: str | None) -> Docstring:
    """Split a docstring in Google style into its text and its sections."""
    parsed = Docstring("")
    heading = ""
    paragraphs: list[str] = []
    for line in inspect.cleandoc(text or "").splitlines():
        if line.rstrip(":") in HEADINGS and line.endswith(":"):
            heading = line.rstrip(":")
            parsed.sections[heading] = []
        elif heading and line.startswith(" "):
            entries = parsed.sections[heading]
            if line.startswith("     ") and entries:
                entries[-1] += f" {line.strip()}"
            else:
                entries.append(line.strip())
        else:
            heading = heading if not line else ""
            paragraphs.append(line)
    parsed.text = "\n".join(paragraphs).strip()
    return parsed


def signature_of(name: str, function: Callable[..., Any]) -> str:
    """Return a signature without quotes around types, in several lines if it is long."""
    try:
        signature = inspect.signature(function)
    except ValueError:
        return name
    parameters = [p for p in signature.parameters.values() if p.name not in ("self", "cls")]
    text = _plain(str(signature.replace(parameters=parameters)))
    if len(name + text) <= WIDTH:
        return name + text
    inside = [_plain(str(p)) for p in parameters]
    first_keyword = next((n for n, p in enumerate(parameters) if p.kind is p.KEYWORD_ONLY), None)
    if first_keyword is not None and not any(p.kind is p.VAR_POSITIONAL for p in parameters):
        inside.insert(first_keyword, "*")
    arguments = "".join(f"    {one},\n" for one in inside)
    return f"{name}(\n{arguments}){text[text.rindex(')') + 1 :] if '->' in text else ''}"


def _plain(text: str) -> str:
    """Return a part of a signature with types, and classes as defaults, as they are written."""
    text = re.sub(r"(: |-> )'([^']*)'", r"\1\2", text)
    return re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", text)


def _function_lines(name: str, function: Callable[..., Any]) -> Iterator[str]:
    yield from ("```python", signature_of(name, function), "```", "")
    yield from _docstring_lines(function.__doc__)


def _class_lines(name: str, kind: type) -> Iterator[str]:
    """Yield a class: its docstring, its properties in a table, and its methods."""
    if not issubclass(kind, BaseException):
        yield from ("```python", signature_of(name, kind).removesuffix(" -> None"), "```", "")
    yield from _docstring_lines(kind.__doc__)
    members = [(key, value) for key, value in inspect.getmembers(kind)
               if not key.startswith("_") and not _is_builtin(kind, key)]  # fmt: skip
    properties = [(key, value) for key, value in members if isinstance(value, property)]
    if properties:
        yield from ("| property | meaning |", "|---|---|")
        for key, value in properties:
            yield f"| `{key}` | {_cell(parse_docstring(value.__doc__).text)} |"
        yield ""
    for key, value in members:
        if inspect.isroutine(value):
            yield from _function_lines(f"{name}.{key}", value)


def _is_builtin(kind: type, member: str) -> bool:
    owner = next(base for base in kind.__mro__ if member in vars(base))
    return owner.__module__ == "builtins"


def _docstring_lines(text: str | None) -> Iterator[str]:
    parsed = parse_docstring(text)
    yield from (parsed.text, "")
    for heading, entries in parsed.sections.items():
        title = {"Args": "Arguments"}.get(heading, heading)
        if heading in ("Returns", "Yields"):
            yield from (f"**{title}:** {' '.join(entries)}", "")
            continue
        yield from (f"**{title}:**", "")
        for entry in entries:
            match = ENTRY.fullmatch(entry)
            yield f"- `{match['name'].strip('`')}`: {match['text']}" if match else f"- {entry}"
        yield ""


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|")
