"""Usage errors in one line: unknown options and commands, with suggestions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from typer.core import TyperGroup


class SuggestingGroup(TyperGroup):
    """A group of commands that suggests similar commands, and new names for old ones."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command, or fail with suggestions."""
        name = args[0]
        if name not in self.commands and not name.startswith("-"):
            from pipelines.recipes.option_hints import suggest_commands

            ctx.fail(_with_hint(f"unknown command {name!r}", suggest_commands(name, self.commands)))
        return super().resolve_command(ctx, args)


def usage_error(error: Any) -> str:
    """Return the text of a `typer.TyperException`, with the command whose help explains more."""
    context = getattr(error, "ctx", None)
    text = getattr(error, "format_message", lambda: str(error))()
    if context and hasattr(error, "possibilities"):  # an unknown option
        text = _unknown_option(error.option_name, context.command.params)
    end = "" if text.endswith((".", "?")) else "."
    return f"{text}{end} See '{context.command_path} --help'." if context else text


def _unknown_option(flag: str, parameters: Iterable[Any]) -> str:
    from pipelines.recipes.option_hints import suggest_options

    known = {_key(name): name for one in parameters for name in (*one.opts, *one.secondary_opts)
             if name.startswith("--")}  # fmt: skip
    meant = [known[key] for key in suggest_options(_key(flag), known)]
    return _with_hint(f"unknown option {flag!r}", meant)


def _with_hint(text: str, meant: list[str]) -> str:
    return f"{text}; did you mean {' or '.join(meant)}?" if meant else text


def _key(flag: str) -> str:
    """Return a flag as the recipe's key."""
    return flag.lstrip("-").replace("-", "_").lower()
