"""Tables of images: CSV, JSON lines or Parquet with a path or URI and a label for each image."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self, TextIO

from components.ingest.sources.json_text import json_lines
from components.ingest.sources.parquet_files import (
    arrow_errors,
    check_lists,
    check_types,
    check_value_counts,
    is_text,
)
from components.ingest.sources.table_columns import Row, TableColumns, checked_row, values_of
from regraft_core.runtime.errors import InputError

_DELIMITERS = ",;\t|"
_CSV_SUFFIXES, _JSON_LINES_SUFFIXES = (".csv", ".csv.txt"), (".jsonl", ".ndjson", ".jsonlines")
MAX_ROW_CHARACTERS = 1 << 20
_FIRST_RECORDS = 20
# In a column of Parquet, which can repeat a value of any size in a few bytes.
_MAX_VALUE_BYTES, _MAX_BYTES_PER_ROW, _SMALL_BYTES = 1 << 16, 1 << 14, 64 << 20


def is_table(file: Path, name: str) -> bool:
    """Return whether a file is a table, by its first bytes or the name of its source."""
    return is_parquet(file) or name.lower().endswith(_CSV_SUFFIXES + _JSON_LINES_SUFFIXES)


def is_parquet(file: Path) -> bool:
    """Return whether a file starts as a Parquet file does."""
    with open(file, "rb") as opened:
        return opened.read(4) == b"PAR1"


def table_rows(file: Path, name: str, wanted: TableColumns | None = None) -> Iterator[Row]:
    """Yield the rows of a table, the invalid ones with their problem.

    Args:
        file: CSV (UTF-8, with a header), JSON lines or Parquet.
        name: of the table, for messages and the kind of table.
        wanted: names of columns.

    Raises:
        InputError: a column is missing, or it is not a table.
    """
    read = _csv
    if is_parquet(file):
        read = _parquet
    elif name.lower().endswith(_JSON_LINES_SUFFIXES):
        read = _json_lines
    wanted = wanted or TableColumns()
    for number, values in read(file, name, wanted):
        yield checked_row(f"row {number}", values, wanted)


def _json_lines(file: Path, name: str, wanted: TableColumns) -> Iterator[tuple[int, list[Any]]]:
    records = json_lines(file, name)
    # Records need not have the same keys; the first ones together must have those of a table.
    first = list(itertools.islice(records, _FIRST_RECORDS))
    if first:
        wanted.find([*dict.fromkeys(key for _, record in first for key in record)], name)
    for number, record in itertools.chain(first, records):
        yield number, values_of(record, wanted.locate(list(record)))


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


def _csv(file: Path, name: str, wanted: TableColumns) -> Iterator[tuple[int, list[Any]]]:
    try:
        with open(file, newline="", encoding="utf-8-sig") as opened:
            lines = _Lines(opened)
            header = next(lines, "")
            delimiter = max(_DELIMITERS, key=lambda mark: (header.count(mark), mark == ","))
            read = itertools.chain([header] if header else [], lines)
            reader = csv.DictReader(read, strict=True, delimiter=delimiter)
            columns = wanted.find(reader.fieldnames or [], name)
            for row in reader:
                lines.start_row()
                if None in row or None in row.values():
                    raise InputError(
                        f"{name}, line {reader.line_num}: expected {len(reader.fieldnames or [])}"
                        " values"
                    )
                yield reader.line_num, values_of(row, columns)
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{name}: expected a CSV table in UTF-8: {error}") from error


def _parquet(file: Path, name: str, wanted: TableColumns) -> Iterator[tuple[int, list[Any]]]:
    with arrow_errors(name):
        from pyarrow import parquet

        opened = parquet.ParquetFile(file)
        columns = wanted.find(opened.schema_arrow.names, name)
        present = list(dict.fromkeys(column for column in columns if column))
        _check_parquet(opened, present, name, columns[1])
        # As dictionaries, so that repeated values are in memory once.
        texts = [column for column in present if is_text(opened.schema_arrow.field(column).type)]
        opened = parquet.ParquetFile(file, read_dictionary=texts)
        number = 0
        # Without threads, because worker processes are forked while this is open.
        for batch in opened.iter_batches(4096, columns=present, use_threads=False):
            check_lists(batch, name)
            _check_values(batch, name)
            for row in batch.to_pylist():
                number += 1
                yield number, values_of(row, columns)


def _check_parquet(opened: Any, present: Sequence[str], name: str, label: str | None) -> None:
    """Refuse columns of other values than text and numbers, and very large ones, before reading.

    Raises:
        InputError: there is such a column.
    """
    check_types(opened.schema_arrow, present, label, name)
    for number in range(opened.metadata.num_row_groups):
        group = opened.metadata.row_group(number)
        check_value_counts(group, present, name)
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
        if is_text(distinct.type) and len(distinct):
            longest = compute.max(compute.binary_length(distinct)).as_py() or 0
            if longest > _MAX_VALUE_BYTES:
                raise InputError(f"{name}: expected values of at most {_MAX_VALUE_BYTES} bytes in "
                                 f"{column}, found {longest}")  # fmt: skip
