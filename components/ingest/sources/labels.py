"""Labels of classes: in one Unicode form, on one line, and which of them are easily confused."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from regraft_core.runtime.errors import DataError

MAX_LABEL_BYTES = 255
"""As of a folder's name."""
_LINE_BREAKS = ("Zl", "Zp")
_CONTROLS = ("Cc", *_LINE_BREAKS)
# Of the text that follows, they change the direction in which it is shown.
_DIRECTIONS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_SHOWN = 40
# Cyrillic and Greek letters that most fonts draw like Latin ones, after `casefold`.
_LATIN = str.maketrans("асԁеһіјԛорѕхуѵѡӏαγινορυ", "acdehijqopsxyvwlayivopu")


def class_label(name: str) -> str:
    """Return the label of a class: its name in the Unicode form NFC.

    Raises:
        DataError: the name has a line break or another control character, is not valid UTF-8, or
            is too long.
    """
    label = unicodedata.normalize("NFC", name)
    if len(label) > MAX_LABEL_BYTES:
        raise DataError(_too_long(label))
    categories = {unicodedata.category(character) for character in label}
    if "Cs" in categories:
        # A byte of a file name or, from JSON, half of a surrogate pair.
        shown = name.encode("utf-8", "backslashreplace").decode().replace(r"\udc", r"\x")
        raise DataError(f"class '{shown}': expected a name in UTF-8; rename it")
    if len(label.encode()) > MAX_LABEL_BYTES:
        raise DataError(_too_long(label))
    if categories.intersection(_CONTROLS) or _DIRECTIONS.intersection(label):
        raise DataError(
            f"class {label!r}: expected a name without line breaks and control characters; "
            "rename it"
        )
    return label


def _too_long(label: str) -> str:
    return f"class {label[:_SHOWN]!r}...: expected a name of at most {MAX_LABEL_BYTES} bytes"


def label_key(label: str) -> str:
    """Return a label without case, Unicode form, invisible marks, dots and spaces at the end.

    Letters of other alphabets that look like Latin ones are those.
    """
    visible = "".join(c for c in label if unicodedata.category(c) != "Cf")
    plain = unicodedata.normalize("NFKC", visible).casefold().translate(_LATIN)
    return plain.strip().rstrip(" .")


def describe_confusable(labels: Iterable[str]) -> list[str]:
    """Return a warning for each set of labels with the same `label_key`."""
    by_key: dict[str, list[str]] = {}
    for label in sorted(labels):
        by_key.setdefault(label_key(label), []).append(label)
    return [
        f"the classes {' and '.join(map(repr, same))} differ only by case, Unicode form, letters "
        "that look alike, invisible marks, or dots and spaces at the end"
        for same in by_key.values()
        if len(same) > 1
    ]
