"""The help of a command as plain text; rich would take longer to load than all the rest."""

from __future__ import annotations

import os
import sys
from typing import Any

import typer
from typer.core import TyperCommand


class HelpfulCommand(TyperCommand):
    """A command whose help has its options under their headings, in the order of the command."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments, and the options by heading."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                is_option = parameter.param_type_name == "option"
                heading = getattr(parameter, "rich_help_panel", None)
                heading = heading or ("Options" if is_option else "Arguments")
                sections.setdefault(heading, []).append(record)
        for heading, records in sections.items():
            with formatter.section(in_color(heading)):
                formatter.write_dl(records)


def in_color(heading: str) -> str:
    """Return a heading with its color, for a terminal without `NO_COLOR`."""
    if sys.stdout.isatty() and not os.environ.get("NO_COLOR"):
        return typer.style(heading, fg="cyan", bold=True)
    return heading
