"""Cron expressions of Kubeflow Pipelines: six fields, of which the first is the second."""

from __future__ import annotations

import re

from regraft_core.runtime.errors import InputError

_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
_FIELDS: tuple[tuple[str, int, int, list[str]], ...] = (
    ("second", 0, 59, []),
    ("minute", 0, 59, []),
    ("hour", 0, 23, []),
    ("day of the month", 1, 31, []),
    ("month", 1, 12, _MONTHS),
    ("day of the week", 0, 6, _DAYS),
)
_SHORT = ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")


def kfp_cron(text: str) -> str:
    """Return a cron expression with six fields; of five fields, the second becomes 0.

    Raises:
        InputError: it has another number of fields, or a value is out of range.
    """
    text = text.strip()
    if text in _SHORT or re.fullmatch(r"@every (?=\d)(\d+h)?(\d+m)?(\d+s)?", text, re.ASCII):
        return text
    fields = text.split()
    if len(fields) == 5:
        fields = ["0", *fields]
    if len(fields) != 6:
        raise InputError(
            "schedule: expected five fields (minute hour day month weekday), six (a second before "
            f"them) or {', '.join(_SHORT)}, got {text!r}"
        )
    for value, (name, low, high, names) in zip(fields, _FIELDS, strict=True):
        for part in value.split(","):
            if not _is_valid(part.lower(), low, high, names):
                raise InputError(
                    f"schedule: expected a value of {low} to {high} as {name}, got {value!r}"
                )
    return " ".join(fields)


def _is_valid(part: str, low: int, high: int, names: list[str]) -> bool:
    """Return whether one part of a field (`*`, `?`, 5, 1-5, mon-fri, 0-30/10) is in its range."""
    span, _, step = part.partition("/")
    if "/" in part and not (step.isascii() and step.isdigit() and int(step) > 0):
        return False
    if span in ("*", "?"):
        return True
    ends = []
    for end in span.split("-"):
        if end in names:
            ends.append(names.index(end) + (1 if names == _MONTHS else 0))
        elif end.isascii() and end.isdigit():
            ends.append(int(end))
        else:
            return False
    return len(ends) <= 2 and low <= ends[0] <= ends[-1] <= high
