"""The manual page, made from the commands: `regraft --man | man -l -`."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

from regraft_core.runtime.version import VERSION

EXIT_STATUS = (
    ("0", "Done; for a run: the gate accepted the model."),
    ("1", "Any other error."),
    ("2", "Invalid input or usage."),
    ("3", "The gate rejected the model, or a drift was found."),
)


def manual_page(group: Any) -> str:
    """Return the page in the macros of man(7).

    Args:
        group: the command of all commands, as `typer.main.get_command` returns it.
    """
    return "\n".join(_lines(group)) + "\n"


def _lines(group: Any) -> Iterator[str]:
    yield f'.TH REGRAFT 1 "" "Regraft {VERSION}" "User Commands"'
    yield from (".SH NAME", _text(f"regraft - {group.help}"))
    yield from (".SH SYNOPSIS", ".B regraft", _text("[OPTIONS] COMMAND [ARGUMENTS]"))
    yield ".SH OPTIONS"
    yield from _parameters(group.params)
    yield ".SH COMMANDS"
    for name, command in group.commands.items():
        yield f".SS {_text(name)}"
        for number, paragraph in enumerate(inspect.cleandoc(command.help or "").split("\n\n")):
            yield from ([".PP"] if number else [])
            yield _text(" ".join(paragraph.split()))
        yield from _parameters(command.params)
    yield ".SH EXIT STATUS"
    for code, meaning in EXIT_STATUS:
        yield from (".TP", f".B {code}", _text(meaning))


def _parameters(parameters: list[Any]) -> Iterator[str]:
    for one in parameters:
        if one.hidden or "--help" in one.opts:
            continue
        option = one.opts[0].startswith("-")
        names = (*one.opts, *one.secondary_opts) if option else ((one.metavar or one.name).upper(),)
        yield from (".TP", rf"\fB{_text(', '.join(names))}\fR")
        yield _text(" ".join((one.help or "").split()))


def _text(text: str) -> str:
    """Return a text in which roff finds no request and no escape."""
    escaped = text.replace("\\", r"\e").replace("-", r"\-")
    return re.sub(r"^([.'])", r"\\&\1", escaped)
