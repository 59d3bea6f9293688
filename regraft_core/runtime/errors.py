"""The error tree of the product, and the exit code that each branch ends a command with.

RegraftError                 1   anything else that is ours
|-- InputError               2   bad input or usage: the user can mend it
|   `-- DataError            2   the data cannot be used (empty, one class, too many bad files)
|-- RejectedError            3   the gate refused the model
`-- ParityError              1   served answers differ from the trained model's
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RegraftError(Exception):
    """Base of all errors that Regraft raises on purpose; its text is one line."""

    exit_code = 1


class InputError(RegraftError):
    """A value, file or address given by the user is unusable."""

    exit_code = 2


class DataError(InputError):
    """The images that were given cannot become a dataset."""


class RejectedError(RegraftError):
    """The gate rejected the model."""

    exit_code = 3


class ParityError(RegraftError):
    """The served answers differ from those of the trained model."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> InputError:
    """Return the error for a name that is not among `known`, with near names suggested."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known[:12])}"
    if not near and len(known) > 12:
        hint += f" and {len(known) - 12} more"
    return InputError(f"unknown {kind} {name!r}; {hint}")
