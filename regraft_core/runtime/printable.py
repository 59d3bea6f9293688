"""Text at the edges: for a terminal, a log, JSON output and CSV, without control characters."""

from __future__ import annotations

import base64
import json
import re
from urllib.parse import quote

from regraft_core.runtime.addresses import redact_text

_PIECE = 8
_MARKUP = re.compile(r"[\\`*_\[\]<|~&]")
_ESCAPED = re.compile(rf"\\({_MARKUP.pattern})")
_COLORS = re.compile(r"\x1b\[[0-9;]*m")


def one_line(text: object) -> str:
    """Return a text as one line of printable characters.

    URLs are without user, password and query, which may be a signature. Names of files and classes
    may hold line breaks, escape sequences of a terminal, or bytes that are not UTF-8. Each such
    character becomes a space, and several spaces become one.
    """
    plain = without_colors(str(text))
    line = " ".join("".join(c if c.isprintable() else " " for c in plain).split())
    return redact_text(line)


def without_colors(text: str) -> str:
    """Return a text without the sequences that color it on a terminal, as of kfp and Keras."""
    return _COLORS.sub("", text)


def printable(text: str) -> str:
    """Return a text in which control characters are spaces, except line breaks."""
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text)


def printable_json(text: str) -> str:
    """Return JSON text in which characters that a terminal could interpret are escaped."""
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)


def neutral_cell(text: str) -> str:
    """Return the text of a CSV cell that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def markdown_text(text: str) -> str:
    """Return a text in one line, in which Markdown finds no link, HTML or other markup."""
    return _MARKUP.sub(r"\\\g<0>", one_line(text))


def without_markdown(text: str) -> str:
    """Return Markdown without the backslashes of `markdown_text`."""
    return _ESCAPED.sub(r"\1", text)


def hide_secret(text: str, secret: str) -> str:
    """Return a text with a secret replaced by `***`, also in parts and in other encodings.

    A server may repeat a token truncated, percent-encoded, in base64 or as hexadecimal digits. So
    every run of at least 8 characters that one of these forms contains is replaced.
    """
    if not secret:
        return text
    text = text.replace(secret, "***")
    pieces = {
        form[k : k + _PIECE].lower()
        for form in _forms(secret)
        for k in range(len(form) - _PIECE + 1)
    }
    lower = "".join(c.lower() if len(c.lower()) == 1 else c for c in text)
    hidden = [False] * len(text)
    for k in range(len(text) - _PIECE + 1):
        if lower[k : k + _PIECE] in pieces:
            hidden[k : k + _PIECE] = [True] * _PIECE
    marked = "".join("\0" if hide else c for c, hide in zip(text, hidden, strict=True))
    return re.sub("\0+", "***", marked)


def _forms(secret: str) -> list[str]:
    """Return a secret in the encodings that servers use."""
    data = secret.encode()
    forms = [secret, quote(secret, safe=""), quote(secret), data.hex()]
    for before in range(3):  # base64 depends on the position; the first group has other bytes too
        encoded = base64.b64encode(bytes(before) + data).decode().rstrip("=")
        inside = encoded[4:] if before else encoded
        forms += [inside, inside.replace("+", "-").replace("/", "_")]
    return forms
