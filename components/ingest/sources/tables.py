"""Tables of images: CSV or Parquet with a path or uri, a label, and perhaps a split and group."""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self, TextIO
from urllib.parse import urlsplit

from components.ingest.sources.label_lists import LabelForm, list_text
from components.ingest.sources.labels import class_label
from components.ingest.sources.split_names import split_of_name
from regraft_core.runtime.addresses import is_url
from regraft_core.runtime.errors import DataError, InputError

_FILE_COLUMNS = ("path", "uri")
_COLUMNS = ("label", "split", "group")
_DELIMITERS = ",;\t|"
MAX_ROW_CHARACTERS, MAX_FILE_CHARACTERS = 1 << 20, 8192
_SHOWN_CHARACTERS = 200
_ONE_LABEL = LabelForm()
# In a column of Parquet, which can repeat a value of any size in a few bytes.
_MAX_VALUE_BYTES, _MAX_BYTES_PER_ROW, _SMALL_BYTES = 1 << 16, 1 << 14, 64 << 20


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


def is_parquet(file: Path) -> bool:
    """Return whether a file starts as a Parquet file does."""
    with open(file, "rb") as opened:
        return opened.read(4) == b"PAR1"


def table_rows(
    file: Path, name: str, slices: Sequence[str] = (), form: LabelForm = _ONE_LABEL
) -> Iterator[Row]:
    """Yield the rows of a table, the invalid ones with their problem.

    The first label decides whether the images have one or several.

    Args:
        file: CSV (UTF-8, with a header) or Parquet.
        name: of the table, for messages.
        slices: names of the columns of slices.
        form: how it says the labels.

    Raises:
        InputError: a column is missing, or it is not a table.
    """
    read = _parquet if is_parquet(file) else _csv
    several = True if form.columns or form.separator else None
    for number, values in read(file, name, (*slices, *form.columns), form):
        path, label, split, group, *found = map(_text, values)
        row = Row(path, label, split, group, slices=tuple(found[: len(slices)]))
        try:
            labels = form.labels(values[1], found[len(slices) :])
            row = row._replace(labels=labels, label=label if labels is None else list_text(labels))
            split = _check(row)
            if labels is None:
                row = row._replace(label=class_label(row.label))
            several = _same_form(several, row)
            yield row._replace(split=split)
        except DataError as error:
            shown = row.file[:_SHOWN_CHARACTERS]
            yield Row(shown, "", "", "", f"row {number}: {error}")


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


def _same_form(several: bool | None, row: Row) -> bool:
    """Return whether the images of a table have several labels, as its first row decides.

    Raises:
        DataError: this row has another form.
    """
    found = row.labels is not None
    if several is None or several == found:
        return found
    expected = "a list of labels" if several else "one label"
    raise DataError(f"expected {expected}, as in the rows before, got {row.label!r:.80}")


def _columns(
    names: Sequence[str], name: str, others: Sequence[str], form: LabelForm
) -> tuple[str | None, ...]:
    """Return the column of each field of a row, without case and spaces; None for absent ones.

    Those of slices and of labels follow.
    """
    known = {str(column).strip().lower(): column for column in reversed(names)}
    file = next((known[column] for column in _FILE_COLUMNS if column in known), None)
    if file is None or not ("label" in known or form.columns):
        raise InputError(
            f"{name}: expected the columns path (or uri) and label, and perhaps split and group; "
            f"found {_shown(names)}"
        )
    if absent := [column for column in others if column.lower() not in known]:
        option = "--label-columns" if absent[0] in form.columns else "--slices"
        raise InputError(
            f"{name}: expected the column {absent[0]!r} of {option}; found {_shown(names)}"
        )
    found = (known[column.lower()] for column in others)
    return (file, *(known.get(column) for column in _COLUMNS), *found)


def _shown(names: Sequence[str]) -> str:
    return ", ".join(map(str, names))[:200] or "none"


def _values(row: Mapping[Any, Any], columns: tuple[str | None, ...]) -> list[Any]:
    return [row[column] if column is not None else None for column in columns]


class _Lines:
    """The lines of a file, of which each row may have `MAX_ROW_CHARACTERS`."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self.start_row()

    def start_row(self) -> None:
        """Count the characters of the next row."""
        self._left = MAX_ROW_CHARACTERS

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        line = self._file.readline(self._left + 1)
        self._left -= len(line)
        if self._left < 0:
            raise csv.Error(f"a row has more than {MAX_ROW_CHARACTERS} characters")
        if not line:
            raise StopIteration
        return line


def _csv(
    file: Path, name: str, others: Sequence[str], form: LabelForm
) -> Iterator[tuple[int, list[Any]]]:
    try:
        with open(file, newline="", encoding="utf-8-sig") as opened:
            lines = _Lines(opened)
            header = next(lines, "")
            delimiter = max(_DELIMITERS, key=lambda mark: (header.count(mark), mark == ","))
            read = itertools.chain([header] if header else [], lines)
            reader = csv.DictReader(read, strict=True, delimiter=delimiter)
            columns = _columns(reader.fieldnames or [], name, others, form)
            for row in reader:
                lines.start_row()
                if None in row or None in row.values():
                    raise InputError(
                        f"{name}, line {reader.line_num}: expected {len(reader.fieldnames or [])}"
                        " values"
                    )
                yield reader.line_num, _values(row, columns)
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{name}: expected a CSV table in UTF-8: {error}") from error


def _parquet(
    file: Path, name: str, others: Sequence[str], form: LabelForm
) -> Iterator[tuple[int, list[Any]]]:
    try:
        import pyarrow.lib
        from pyarrow import parquet
    except ImportError as error:
        raise InputError(
            "Parquet needs pyarrow, which comes with the extra [cloud]; in a checkout: make install"
        ) from error
    try:
        opened = parquet.ParquetFile(file)
        columns = _columns(opened.schema_arrow.names, name, others, form)
        present = list(dict.fromkeys(column for column in columns if column))
        _check_parquet(opened, present, name, columns[1])
        # As dictionaries, so that repeated values are in memory once.
        texts = [column for column in present if _is_text(opened.schema_arrow.field(column).type)]
        opened = parquet.ParquetFile(file, read_dictionary=texts)
        number = 0
        # Without threads, because worker processes are forked while this is open.
        for batch in opened.iter_batches(4096, columns=present, use_threads=False):
            _check_values(batch, name)
            for row in batch.to_pylist():
                number += 1
                yield number, _values(row, columns)
    except pyarrow.lib.ArrowException as error:
        raise InputError(f"{name}: expected a Parquet table: {error}") from error


def _check_parquet(opened: Any, present: Sequence[str], name: str, label: str | None) -> None:
    """Refuse columns of other values than text and numbers, and very large ones, before reading.

    The column of labels may have lists of these.

    Raises:
        InputError: there is such a column.
    """
    from pyarrow import types

    for column in present:
        kind = opened.schema_arrow.field(column).type
        if column == label and (types.is_list(kind) or types.is_large_list(kind)):
            kind = kind.value_type
        if types.is_nested(kind):
            raise InputError(f"{name}: expected text or numbers in {column}, found {kind}")
    for number in range(opened.metadata.num_row_groups):
        group = opened.metadata.row_group(number)
        for part in map(group.column, range(group.num_columns)):
            # Of a list, the path has the column's name and those of its parts.
            size, column = part.total_uncompressed_size, part.path_in_schema.split(".list.")[0]
            limit = max(_SMALL_BYTES, _MAX_BYTES_PER_ROW * group.num_rows)
            if column in present and size > limit:
                raise InputError(
                    f"{name}: expected at most {limit} bytes in {column}, found {size}"
                )


def _check_values(batch: Any, name: str) -> None:
    """Refuse values that are too long, before each row gets a copy of them.

    Raises:
        InputError: there is one.
    """
    from pyarrow import compute, types

    for column, values in zip(batch.schema.names, batch.columns, strict=True):
        values = values.flatten() if types.is_nested(values.type) else values
        distinct = getattr(values, "dictionary", values)
        if _is_text(distinct.type) and len(distinct):
            longest = compute.max(compute.binary_length(distinct)).as_py() or 0
            if longest > _MAX_VALUE_BYTES:
                raise InputError(f"{name}: expected values of at most {_MAX_VALUE_BYTES} bytes in "
                                 f"{column}, found {longest}")  # fmt: skip


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_binary(kind)
                or types.is_large_binary(kind))  # fmt: skip
