"""Labels of classes: in one Unicode form, on one line, and which of them are easily confused."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable

from regraft_core.runtime.errors import DataError

_LINE_BREAKS = ("Zl", "Zp")
_CONTROLS = ("Cc", *_LINE_BREAKS)


def class_label(name: str) -> str:
    """Return the label of a class: its name in the Unicode form NFC.

    Raises:
        DataError: the name has a line break or another control character, or is not valid UTF-8.
    """
    label = unicodedata.normalize("NFC", name)
    categories = {unicodedata.category(character) for character in label}
    if "Cs" in categories:
        shown = os.fsencode(name).decode("utf-8", "backslashreplace")
        raise DataError(f"class '{shown}': expected a name in UTF-8; rename it")
    if categories.intersection(_CONTROLS):
        raise DataError(
            f"class {label!r}: expected a name without line breaks and control characters; "
            "rename it"
        )
    return label


def label_key(label: str) -> str:
    """Return a label without case, Unicode form, and dots and spaces at the end."""
    return unicodedata.normalize("NFKC", label).casefold().strip().rstrip(" .")


def describe_confusable(labels: Iterable[str]) -> list[str]:
    """Return a warning for each set of labels with the same `label_key`."""
    by_key: dict[str, list[str]] = {}
    for label in sorted(labels):
        by_key.setdefault(label_key(label), []).append(label)
    return [
        f"the classes {' and '.join(map(repr, same))} differ only by case, Unicode form, or dots "
        "and spaces at the end"
        for same in by_key.values()
        if len(same) > 1
    ]
