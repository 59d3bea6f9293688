"""Parquet and Arrow files by pyarrow, which is optional."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from regraft_core.runtime.errors import InputError

MAX_LABELS = 1 << 16
"""Of one image. A few bytes of a table can repeat a value in a list any number of times."""
_MEAN_LABELS, _FEW_VALUES, _MOST_VALUES = 1 << 10, 1 << 22, 1 << 26


@contextlib.contextmanager
def arrow_errors(name: str) -> Iterator[None]:
    """Turn the errors of pyarrow and of values in its tables, and the lack of it, into one line.

    Raises:
        InputError: the block raised one.
    """
    try:
        import pyarrow.lib
    except ImportError as error:
        raise InputError(
            f"{name}: Parquet and Arrow need pyarrow, which comes with the extra [cloud]; in a "
            "checkout: make install"
        ) from error
    try:
        yield
    except (pyarrow.lib.ArrowException, MemoryError, OSError, ValueError, OverflowError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        line = " ".join(str(error).split())[:200]
        raise InputError(f"{name}: expected a Parquet or Arrow table: {line}") from error


def parquet_schema(file: Path, name: str) -> Any:
    """Return the schema of a Parquet file.

    Raises:
        InputError: it cannot be read.
    """
    with arrow_errors(name):
        from pyarrow import parquet

        return parquet.read_schema(file)


def check_types(schema: Any, columns: Iterable[str], label: str | None, name: str) -> None:
    """Refuse columns of other values than text and numbers; that of labels may have lists of them.

    Raises:
        InputError: there is such a column.
    """
    from pyarrow import types

    for column in columns:
        kind = schema.field(column).type
        if column == label and _is_list(kind):
            kind = kind.value_type
        if types.is_nested(kind):
            raise InputError(f"{name}: expected text or numbers in {column}, found {kind}")


def check_value_counts(group: Any, columns: Iterable[str], name: str) -> None:
    """Refuse a row group of Parquet with very many values in a column, before it is read.

    Args:
        group: its metadata.
        columns: those that are read.
        name: of the table, for messages.

    Raises:
        InputError: there are more than lists of labels have.
    """
    limit = min(max(_FEW_VALUES, _MEAN_LABELS * group.num_rows), _MOST_VALUES)
    for part in map(group.column, range(group.num_columns)):
        # Of a list, the path has the column's name and those of its parts.
        column = part.path_in_schema.split(".list.")[0]
        if column in columns and part.num_values > max(limit, group.num_rows):
            raise InputError(
                f"{name}: expected at most {limit} values in {column} of a row group, found "
                f"{part.num_values}"
            )


def check_lists(batch: Any, name: str) -> None:
    """Refuse a batch with a very long list, before it becomes objects of Python.

    Raises:
        InputError: there is one.
    """
    from pyarrow import compute

    for column, values in zip(batch.schema.names, batch.columns, strict=True):
        if _is_list(values.type) and len(values):
            longest = compute.max(compute.list_value_length(values)).as_py() or 0
            if longest > MAX_LABELS:
                raise InputError(f"{name}: expected at most {MAX_LABELS} labels of an image in "
                                 f"{column}, found {longest}")  # fmt: skip


def _is_list(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def is_text(kind: Any) -> bool:
    """Return whether a type of Arrow is text or bytes."""
    from pyarrow import types

    return bool(types.is_string(kind) or types.is_large_string(kind) or is_bytes(kind))


def is_bytes(kind: Any) -> bool:
    """Return whether a type of Arrow is bytes of any length."""
    from pyarrow import types

    return bool(types.is_binary(kind) or types.is_large_binary(kind))
