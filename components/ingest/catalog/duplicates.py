"""Images with equal bytes or keys, what is compared of similar ones, and what changes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter

from components.ingest.catalog.assignments import source_splits
from components.ingest.catalog.catalog import Catalog
from components.ingest.catalog.columns import index_ids
from components.ingest.catalog.rows import Duplicate

_DUPLICATE = "number, path, label, source_split"


def images_with_id(catalog: Catalog, identity: bytes) -> list[Duplicate]:
    """Return the images with the same bytes, whose SHA-256 is `identity`."""
    index_ids(catalog)
    rows = catalog.query(f"SELECT {_DUPLICATE} FROM images WHERE id = ?", (identity,))  # noqa: S608
    return list(map(Duplicate._make, rows))


def image_with_number(catalog: Catalog, number: int) -> Duplicate:
    """Return one image."""
    rows = catalog.query(f"SELECT {_DUPLICATE} FROM images WHERE number = ?", (number,))  # noqa: S608
    return Duplicate._make(next(rows))


def relabel(catalog: Catalog, labels: Iterable[tuple[str, int]]) -> None:
    """Set the labels of images: label, number."""
    catalog.change("UPDATE images SET label = ? WHERE number = ?", labels)


def exact_duplicates(catalog: Catalog) -> Iterator[list[Duplicate]]:
    """Yield each group of images with the same bytes; that of the test split is first."""
    index_ids(catalog)
    repeated = "SELECT id FROM images GROUP BY id HAVING count(*) > 1"
    return _groups(catalog, "id", repeated, "id, priority DESC, path")


def groups_across_splits(catalog: Catalog) -> Iterator[list[Duplicate]]:
    """Yield each group in several splits of the source; a test image, if any, is first."""
    if len(source_splits(catalog)) < 2:
        return iter(())
    # The inner query reads the index alone.
    catalog.query("CREATE INDEX IF NOT EXISTS by_key ON images (key)")
    repeated = "SELECT key FROM images GROUP BY key HAVING count(*) > 1"
    return _groups(
        catalog, "key",
        f"SELECT key FROM images WHERE key IN ({repeated}) GROUP BY key"  # noqa: S608
        " HAVING max(source_split) <> min(source_split)",
        "key, priority DESC, path",
    )  # fmt: skip


def thumbnail(catalog: Catalog, number: int) -> bytes | None:
    """Return the thumbnail of an image; None for small and flat images."""
    rows = catalog.query("SELECT pixels FROM thumbnails WHERE number = ?", (number,))
    found: tuple[bytes] | None = rows.fetchone()
    return found[0] if found else None


def set_source_splits(catalog: Catalog, splits: Iterable[tuple[str, int]]) -> None:
    """Set the source's splits of images: split, number."""
    catalog.change("UPDATE images SET source_split = ? WHERE number = ?", splits)


def _groups(catalog: Catalog, column: str, values: str, order: str) -> Iterator[list[Duplicate]]:
    """Yield the images with equal values of a column, for the values of a query."""
    rows = catalog.query(
        f"SELECT {column}, {_DUPLICATE} FROM images"  # noqa: S608
        f" WHERE {column} IN ({values}) ORDER BY {order}"
    )
    for _, group in groupby(rows, itemgetter(0)):
        yield [Duplicate._make(row[1:]) for row in group]
