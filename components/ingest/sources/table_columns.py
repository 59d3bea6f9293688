"""The columns of a table, and the checks of a row that all tables share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

from components.ingest.sources.label_lists import LabelForm, list_text
from components.ingest.sources.labels import class_label
from components.ingest.sources.split_names import split_of_name
from regraft_core.formats.options.ingest import IngestOptions
from regraft_core.runtime.addresses import is_url
from regraft_core.runtime.errors import DataError, InputError

FILE_COLUMNS = ("path", "uri", "file_name")
MAX_FILE_CHARACTERS = 8192
_SHOWN_CHARACTERS = 200
_ONE_LABEL = LabelForm()


@dataclass(frozen=True)
class TableColumns:
    """Names of columns, in lower case: those of the options, and whether a table must have them."""

    label: str = "label"
    split: str = ""
    group: str = ""
    slices: tuple[str, ...] = ()
    form: LabelForm = _ONE_LABEL

    @classmethod
    def of(cls, options: IngestOptions) -> Self:
        """Return the columns that the options name."""
        return cls(
            label=options.label_column.strip().lower(),
            split=options.split_column.strip().lower(),
            group=options.group_column.strip().lower(),
            slices=options.slices,
            form=LabelForm.of(options),
        )

    def find(
        self, names: Sequence[Any], name: str, *, with_file: bool = True
    ) -> tuple[Any | None, ...]:
        """Return the column of each field of a row, as `locate` does; refuse other tables.

        Args:
            names: the columns of the table.
            name: of the table, for messages.
            with_file: whether a column must have the file.

        Raises:
            InputError: a column is missing.
        """
        found = self.locate(names)
        file, label, split, group, *others = found
        if (label is None and not self.form.columns) or (with_file and file is None):
            wanted = ["path, uri or file_name"] * with_file + [self.label]
            raise InputError(
                f"{name}: expected the columns {' and '.join(wanted)}, and perhaps split and "
                f"group; found {_shown(names)}; --label-column names another column of labels"
            )
        named = [("--split-column", self.split, split), ("--group-column", self.group, group)]
        options = ["--slices"] * len(self.slices) + ["--label-columns"] * len(self.form.columns)
        named += zip(options, (*self.slices, *self.form.columns), others, strict=True)
        for option, wanted_name, column in named:
            if wanted_name and column is None:
                raise InputError(
                    f"{name}: expected the column {wanted_name!r} of {option}; found "
                    f"{_shown(names)}"
                )
        return found

    def locate(self, names: Sequence[Any]) -> tuple[Any | None, ...]:
        """Return the column of each field of a row, without case and spaces; None for absent ones.

        They are file, label, split and group; those of slices and of labels follow.
        """
        known = {str(column).strip().lower(): column for column in reversed(names)}
        files = (known[column] for column in FILE_COLUMNS if column in known)
        indicators = (name.lower() for name in self.form.columns)
        fields = (self.label, self.split or "split", self.group or "group", *self.slices)
        fields += (*indicators,)
        return (next(files, None), *map(known.get, fields))


class Row(NamedTuple):
    """One row of a table, with the path or URI unchanged; `split` is a split's name or empty.

    `problem` says why the row is invalid; otherwise it is empty. `slices` are the values of the
    columns of slices. With several labels an image, `labels` are its classes, and `label` is their
    JSON list.
    """

    file: str
    label: str
    split: str
    group: str
    problem: str = ""
    slices: tuple[str, ...] = ()
    labels: tuple[str, ...] | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes of the image."""
        return (self.label,) if self.labels is None else self.labels


def values_of(row: Mapping[Any, Any], columns: Sequence[Any | None]) -> list[Any]:
    """Return the values of a row in the order of `TableColumns.find`; None for absent ones."""
    return [row.get(column) if column is not None else None for column in columns]


def checked_row(where: str, values: Sequence[Any], wanted: TableColumns) -> Row:
    """Return a row of the values of `wanted`, with its problem if there is one.

    Args:
        where: which row it is, for its problem.
        values: as read.
        wanted: which columns they are of.
    """
    file, label, split, group, *others = map(_text, values)
    slices, indicators = others[: len(wanted.slices)], others[len(wanted.slices) :]
    try:
        if isinstance(values[1], dict):
            raise DataError(f"expected a label or a list of labels, got {label:.80}")
        labels = wanted.form.labels(values[1], indicators)
        label = label if labels is None else list_text(labels)
        row = Row(file, label, split, group, slices=tuple(slices), labels=labels)
        row = row._replace(split=_check(row))
        return row if labels is not None else row._replace(label=class_label(label))
    except DataError as error:
        return Row(file[:_SHOWN_CHARACTERS], "", "", "", f"{where}: {error}")


def _text(value: Any) -> str:
    """Return a value as text; a missing one, as of pandas, is empty, and 1.0 is 1."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()


def _check(row: Row) -> str:
    """Return the split of a row.

    Raises:
        DataError: it has no path or label, an unknown split, or a path that no file can have.
    """
    if len(row.file) > MAX_FILE_CHARACTERS:
        raise DataError(f"expected a path of at most {MAX_FILE_CHARACTERS} characters, got "
                        f"{len(row.file)}")  # fmt: skip
    if not row.file or not row.label:
        raise DataError(f"expected a path and a label, got {row.file!r} and {row.label!r}")
    if "\0" in row.file:
        raise DataError(f"expected a path without NUL, got {row.file!r}")
    if is_url(row.file):
        try:
            urlsplit(row.file)
        except ValueError as error:
            raise DataError(f"expected a URL, got {row.file!r} ({error})") from error
    split = split_of_name(row.split) if row.split else ""
    if split is None:
        raise DataError(f"expected split train, validation or test, got {row.split!r}")
    return split


def _shown(names: Sequence[Any]) -> str:
    return ", ".join(map(str, names))[:_SHOWN_CHARACTERS] or "none"
