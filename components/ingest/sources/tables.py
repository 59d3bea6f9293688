"""Tables of images: CSV or Parquet with a path or uri, a label, and perhaps a split and group."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from regraft_core.formats.manifests import Split
from regraft_core.runtime.errors import InputError

SPLIT_NAMES: dict[str, Split] = {
    "train": "train", "training": "train",
    "validation": "validation", "val": "validation", "valid": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip
_FILE_COLUMNS = ("path", "uri")
_COLUMNS = ("label", "split", "group")


class Row(NamedTuple):
    """One row of a table, with the path or URI unchanged; `split` is a split's name or empty."""

    file: str
    label: str
    split: str
    group: str


def is_parquet(file: Path) -> bool:
    """Return whether a file starts as a Parquet file does."""
    with open(file, "rb") as opened:
        return opened.read(4) == b"PAR1"


def table_rows(file: Path, name: str) -> Iterator[Row]:
    """Yield the rows of a table.

    Args:
        file: CSV (UTF-8, with a header) or Parquet.
        name: of the table, for messages.

    Raises:
        InputError: a column is missing, a row has no path or label, or an unknown split.
    """
    for number, values in _parquet(file, name) if is_parquet(file) else _csv(file, name):
        row = Row(*(str(value).strip() if value is not None else "" for value in values))
        if not row.file or not row.label:
            raise InputError(f"{name}, row {number}: expected a path and a label, got {row[:2]}")
        if row.split and row.split.lower() not in SPLIT_NAMES:
            raise InputError(
                f"{name}, row {number}: expected split train, validation or test, got {row.split!r}"
            )
        yield row._replace(split=SPLIT_NAMES[row.split.lower()] if row.split else "")


def _columns(names: Sequence[str], name: str) -> tuple[str | None, ...]:
    """Return the column of each field of a row; None for absent ones."""
    file = next((column for column in _FILE_COLUMNS if column in names), None)
    if file is None or "label" not in names:
        raise InputError(
            f"{name}: expected the columns path (or uri) and label, and perhaps split and group; "
            f"found {', '.join(map(str, names))[:200] or 'none'}"
        )
    return (file, *(column if column in names else None for column in _COLUMNS))


def _values(row: Mapping[Any, Any], columns: tuple[str | None, ...]) -> list[Any]:
    return [row[column] if column else None for column in columns]


def _csv(file: Path, name: str) -> Iterator[tuple[int, list[Any]]]:
    try:
        with open(file, newline="", encoding="utf-8-sig") as opened:
            reader = csv.DictReader(opened, strict=True)
            columns = _columns(reader.fieldnames or [], name)
            for row in reader:
                if None in row or None in row.values():
                    raise InputError(
                        f"{name}, line {reader.line_num}: expected {len(reader.fieldnames or [])}"
                        " values"
                    )
                yield reader.line_num, _values(row, columns)
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{name}: expected a CSV table in UTF-8: {error}") from error


def _parquet(file: Path, name: str) -> Iterator[tuple[int, list[Any]]]:
    try:
        import pyarrow.lib
        from pyarrow import parquet
    except ImportError as error:
        raise InputError(
            "Parquet needs pyarrow, which comes with the extra [cloud]; in a checkout: make install"
        ) from error
    try:
        opened = parquet.ParquetFile(file)
        columns = _columns(opened.schema_arrow.names, name)
        present = [column for column in columns if column]
        number = 0
        # Without threads, because worker processes are forked while this is open.
        for batch in opened.iter_batches(4096, columns=present, use_threads=False):
            for row in batch.to_pylist():
                number += 1
                yield number, _values(row, columns)
    except pyarrow.lib.ArrowException as error:
        raise InputError(f"{name}: expected a Parquet table: {error}") from error
