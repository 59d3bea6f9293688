"""The labels of an image in a table: one, a list, or columns with 0 and 1.

Nothing is guessed: a list is JSON, or text with the separator of the options.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

from components.ingest.sources.labels import class_label
from regraft_core.formats.options.ingest import IngestOptions
from regraft_core.runtime.errors import DataError

_SHOWN = 80
# pandas writes whole numbers as 1.0 if a value of their column is missing.
_INDICATORS = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}


@dataclass(frozen=True)
class LabelForm:
    """How a table says the labels of an image.

    Attributes:
        columns: columns with 0 and 1, which are the classes; none if the label column has them.
        separator: of the labels in the label column; empty expects one label or a JSON list.
    """

    columns: tuple[str, ...] = ()
    separator: str = ""

    @classmethod
    def of(cls, options: IngestOptions) -> Self:
        """Return what the options say."""
        return cls(options.label_columns, options.label_separator)

    def labels(self, value: Any, indicators: Sequence[str]) -> tuple[str, ...] | None:
        """Return the labels of a row, sorted and different; None if it has one label.

        Args:
            value: of the label column, as read.
            indicators: the values of the columns, as text.

        Raises:
            DataError: a value is missing, or is no list of names of classes.
        """
        if self.columns:
            names = zip(self.columns, indicators, strict=True)
            return _sorted(name for name, text in names if _indicator(name, text))
        if isinstance(value, list | tuple):
            return _of_list(value)
        if not isinstance(value, str):
            return _of_list([value]) if self.separator and value is not None else None
        text = value.strip()
        if text.startswith("[") and text.endswith("]"):
            return _of_list(_parse(text))
        if not self.separator or not text:
            return None
        return _of_list(text.split(self.separator))


def list_text(labels: Sequence[str]) -> str:
    """Return sorted labels as the JSON text that the catalog has for an image."""
    return json.dumps(labels, ensure_ascii=False)


def _parse(text: str) -> list[Any]:
    try:
        found: list[Any] = json.loads(text)
    except (ValueError, RecursionError):
        raise DataError(
            f'expected one label or a JSON list such as ["cat", "dog"], got {text[:_SHOWN]!r}'
        ) from None
    return found


def _of_list(values: Iterable[Any]) -> tuple[str, ...]:
    return _sorted(_name(value) for value in values)


def _name(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise DataError(f"expected names of classes in the list of labels, got {value!r:.80}")
    return str(value).strip()


def _sorted(names: Iterable[str]) -> tuple[str, ...]:
    """Return different names in order; a list may have one for each of several objects."""
    return tuple(sorted({class_label(name) for name in names}))


def _indicator(name: str, text: str) -> bool:
    try:
        return _INDICATORS[text.lower()]
    except KeyError:
        raise DataError(f"expected 0 or 1 in the column {name!r}, got {text[:_SHOWN]!r}") from None
