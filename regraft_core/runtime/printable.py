"""Text for a terminal or a log: one line without control characters."""

from __future__ import annotations


def one_line(text: object) -> str:
    """Return a text as one line of printable characters.

    Names of files and classes may hold line breaks, escape sequences of a terminal, or bytes that
    are not UTF-8. Each such character becomes a space, and several spaces become one.
    """
    return " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
