"""Usage errors in one line, with suggestions for unknown options."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pipelines.recipes.option_hints import suggest_options


def usage_error(error: Any) -> str:
    """Return the text of a `typer.TyperException`, with the command whose help explains more."""
    context = getattr(error, "ctx", None)
    text = getattr(error, "format_message", lambda: str(error))()
    if context and hasattr(error, "possibilities"):  # an unknown option
        text = _unknown_option(error.option_name, context.command.params)
    end = "" if text.endswith((".", "?")) else "."
    return f"{text}{end} See '{context.command_path} --help'." if context else text


def with_suggestions(text: str, names: list[str]) -> str:
    """Return an error text with the names that may be meant, if there are any."""
    return f"{text}; did you mean {' or '.join(names)}?" if names else text


def _unknown_option(flag: str, parameters: Iterable[Any]) -> str:
    known = {_key(name): name for one in parameters for name in (*one.opts, *one.secondary_opts)
             if name.startswith("--")}  # fmt: skip
    similar = [known[key] for key in suggest_options(_key(flag), known)]
    return with_suggestions(f"unknown option {flag!r}", similar)


def _key(flag: str) -> str:
    """Return a flag as the key of a recipe."""
    return flag.lstrip("-").replace("-", "_").lower()
