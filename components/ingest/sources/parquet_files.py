"""Parquet and Arrow files by pyarrow, which is optional."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from regraft_core.runtime.errors import InputError


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


def is_text(kind: Any) -> bool:
    """Return whether a type of Arrow is text or bytes."""
    from pyarrow import types

    return bool(types.is_string(kind) or types.is_large_string(kind) or is_bytes(kind))


def is_bytes(kind: Any) -> bool:
    """Return whether a type of Arrow is bytes of any length."""
    from pyarrow import types

    return bool(types.is_binary(kind) or types.is_large_binary(kind))
