"""Columns of all images as arrays, in the order of the images' numbers.

What is decided about all images together, such as groups and splits, is decided on arrays: an
integer takes 8 bytes of memory and a word 4, while a Python tuple takes hundreds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from components.ingest.catalog.catalog import Catalog

_BLOCK = 10_000
_OF_SPLIT = "FROM images WHERE ?1 IS NULL OR source_split = ?1 ORDER BY number"


class Words(NamedTuple):
    """A column of text with few different values.

    Attributes:
        codes: int32 [n], the position of each image's value in `values`.
        values: the different values.
    """

    codes: NDArray[np.int32]
    values: list[str]


def read_integers(
    catalog: Catalog, column: str, source_split: str | None = None
) -> NDArray[np.int64]:
    """Return a column of all images, or of those of one split of the source: int64 [n]."""
    rows = catalog.query(f"SELECT {column} {_OF_SPLIT}", (source_split,))
    return np.fromiter((value for (value,) in rows), np.int64)


def read_words(catalog: Catalog, column: str, source_split: str | None = None) -> Words:
    """Return a column of all images, or of those of one split of the source, as codes."""
    codes: dict[str, int] = {}
    rows = catalog.query(f"SELECT {column} {_OF_SPLIT}", (source_split,))
    found = np.fromiter((codes.setdefault(value, len(codes)) for (value,) in rows), np.int32)
    return Words(found, list(codes))


def read_numbers_by_id(catalog: Catalog) -> NDArray[np.int64]:
    """Return the numbers of all images in the order of their ids: int64 [n].

    Unlike numbers, ids do not depend on the order in which the images were read.
    """
    index_ids(catalog)
    # Of the index alone: to read other columns in this order takes a search for each image.
    rows = catalog.query("SELECT number FROM images ORDER BY id")
    return np.fromiter((number for (number,) in rows), np.int64)


def write_integers(
    catalog: Catalog, column: str, values: NDArray[np.int64], numbers: NDArray[np.int64]
) -> None:
    """Set a column of the images with `numbers` (int64 [n]) to `values` (int64 [n])."""
    statement = f"UPDATE images SET {column} = ? WHERE number = ?"  # noqa: S608
    catalog.change(statement, _rows(values, numbers))


def write_words(
    catalog: Catalog, column: str, codes: NDArray[np.integer], values: Sequence[str],
    numbers: NDArray[np.int64],
) -> None:  # fmt: skip
    """Set a column of the images with `numbers` (int64 [n]) to the values of codes (int [n])."""
    statement = f"UPDATE images SET {column} = ? WHERE number = ?"  # noqa: S608
    catalog.change(statement, ((values[code], number) for code, number in _rows(codes, numbers)))


def index_ids(catalog: Catalog) -> None:
    """Create the index that finds the images of an id, unless it exists."""
    catalog.query("CREATE INDEX IF NOT EXISTS by_id ON images (id)")


def _rows(*columns: NDArray[np.integer]) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of arrays of equal length; only a block of them is in memory."""
    for start in range(0, len(columns[0]), _BLOCK):
        yield from zip(*(one[start : start + _BLOCK].tolist() for one in columns), strict=True)
