"""The errors of Regraft, and the exit code of a command that ends with one.

RegraftError                 1   any other error of Regraft
|-- InputError               2   invalid input or usage, which the user can fix
|   |-- DataError            2   unusable data (empty, one class, too many invalid files)
|   `-- UnavailableError     2   a store, server or disk failed; another attempt may succeed
|-- NodeMemoryError          1   the memory of a node is exhausted; also a MemoryError
|-- RejectedError            3   the gate rejected the model
|-- DriftError               3   the images that a model receives have changed
`-- ParityError              1   served predictions differ from the trained model's
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RegraftError(Exception):
    """Base of all errors of Regraft; the message is one line."""

    exit_code = 1


class InputError(RegraftError):
    """A value, path or URL of the user is invalid."""

    exit_code = 2


class DataError(InputError):
    """The images cannot become a dataset."""


class UnavailableError(InputError):
    """A store, a server or a disk that the input names has failed; another attempt may succeed."""


class NodeMemoryError(RegraftError, MemoryError):
    """The memory of a node is exhausted; smaller batches may fit."""


class RejectedError(RegraftError):
    """The gate rejected the model."""

    exit_code = 3


class DriftError(RegraftError):
    """The images that a model receives differ from those that it was validated on."""

    exit_code = 3


class ParityError(RegraftError):
    """The served predictions differ from the trained model's."""


def may_pass(error: BaseException | None) -> bool:
    """Return whether another attempt with the same input may succeed."""
    while error is not None:
        if isinstance(error, UnavailableError) or not isinstance(error, InputError):
            return True
        error = error.__cause__ if isinstance(error.__cause__, InputError) else None
    return False


def unknown_name(kind: str, name: str, known: Iterable[str]) -> InputError:
    """Return the error for a name that is not in `known`, with similar names suggested."""
    known = sorted(known)
    longer = [one for one in known if len(name) > 2 and one.startswith(name)]
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    similar = list(dict.fromkeys([*longer, *close]))[:3]
    hint = f"did you mean {' or '.join(similar)}?" if similar else f"known: {', '.join(known[:12])}"
    if not similar and len(known) > 12:
        hint += f" and {len(known) - 12} more"
    return InputError(f"unknown {kind} {name!r}; {hint}")
