"""The catalog of all images during ingest: an SQLite file, so that memory use stays flat.

All SQL of ingest is in this package. The file is removed with the working folder. An image takes
about 300 bytes of disk with its indexes, and one with a thumbnail 1,100 more. Thumbnails are in a
table of their own: only those of similar images are read, and the other columns by many queries.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from components.ingest.catalog.rows import ImageRow, StoredImage

_CACHE_KIB = 2 * 1024
"""Small, because each process has its own, and memory must not grow with the images."""
_TABLES = """
CREATE TABLE images (
  number INTEGER PRIMARY KEY, id BLOB, key INTEGER, path BLOB, file BLOB, label TEXT,
  source_split TEXT, spool INTEGER, start INTEGER, length INTEGER, width INTEGER, height INTEGER,
  conversions TEXT, notes TEXT, hash64 INTEGER, has_thumbnail INTEGER, split TEXT, slices TEXT,
  priority INTEGER AS (CASE source_split WHEN 'test' THEN 3 WHEN 'validation' THEN 2
    WHEN 'train' THEN 1 ELSE 0 END) VIRTUAL);
CREATE TABLE thumbnails (number INTEGER PRIMARY KEY, pixels BLOB);
CREATE TABLE quarantine (path BLOB, reason TEXT, detail TEXT);
"""
_THUMBNAIL = ImageRow._fields.index("thumbnail")
_STORED = "id, path, file, spool, start, length, key, slices"
_BY_CLASS = """(SELECT split, source_split, class.value AS label
  FROM images, json_each(images.label) AS class)"""
"""The images with several labels, once for each of their classes."""


class Catalog:
    """The images and the quarantined files of one ingest; workers open it to read.

    Attributes:
        path: of the file.
        by_class: the table or subquery that has the images once for each of their classes.
    """

    def __init__(self, path: Path, *, create: bool = False) -> None:
        self.path = path
        self.by_class = "images"
        self._added = 0
        mode = "rwc" if create else "ro"
        self._connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={mode}", uri=True, isolation_level=None
        )
        self.query(f"PRAGMA cache_size=-{_CACHE_KIB}")
        if create:
            # An interrupted run starts again, so the file need not survive it.
            # Large pages waste less by thumbnails.
            for pragma in (
                "page_size=16384",
                "journal_mode=OFF",
                "synchronous=OFF",
                "locking_mode=NORMAL",
            ):
                self.query(f"PRAGMA {pragma}")
            self._connection.executescript(_TABLES)

    def close(self) -> None:
        """Close the database."""
        self._connection.close()

    def use_label_lists(self) -> None:
        """Read the label of each image as the list of its classes, from now on."""
        self.by_class = _BY_CLASS

    # For the modules of this package.

    def query(self, statement: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        """Run a statement; return its rows, which are read when they are iterated."""
        return self._connection.execute(statement, values)

    def change(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run a statement for many rows, in one transaction."""
        self.query("BEGIN")
        self._connection.executemany(statement, rows)
        self.query("COMMIT")

    # Images and files as they are read.

    def add_images(self, images: Iterable[tuple]) -> None:
        """Insert a chunk of valid images, each an `ImageRow` or the tuple of one."""
        rows = [(number, *image) for number, image in enumerate(images, self._added + 1)]
        self._added += len(rows)
        columns = ",".join(ImageRow._fields).replace("thumbnail", "has_thumbnail")
        marks = ["?"] * (1 + len(ImageRow._fields))
        marks[1 + _THUMBNAIL] += " IS NOT NULL"
        self.change(
            f"INSERT INTO images (number,{columns}) VALUES ({','.join(marks)})",  # noqa: S608
            rows,
        )
        thumbnails = [(row[0], row[1 + _THUMBNAIL]) for row in rows]
        self.change(
            "INSERT INTO thumbnails VALUES (?,?)", (row for row in thumbnails if row[1] is not None)
        )

    def quarantine(self, files: Iterable[tuple[bytes, str, str]]) -> None:
        """Insert excluded files: path, reason, detail."""
        self.change("INSERT INTO quarantine VALUES (?,?,?)", files)

    def remove_images(self, numbers: Iterable[int]) -> None:
        """Remove images by number; their thumbnails are not read any more."""
        self.change("DELETE FROM images WHERE number = ?", zip(numbers))

    def quarantined(self, limit: int = -1) -> Iterator[tuple[bytes, str, str]]:
        """Yield the first excluded files by path (all by default): path, reason, detail."""
        columns = "path, reason, detail"
        return self.query(
            f"SELECT {columns} FROM quarantine ORDER BY {columns} LIMIT ?",  # noqa: S608
            (limit,),
        )

    # Images of a split, in the order of their ids.

    def index_splits(self) -> None:
        """Create the index for reading a split by id; call it when the splits are final."""
        # With all columns that the writers read, because the rows are not stored by id.
        self.query(f"CREATE INDEX by_split ON images (split, {_STORED}, label)")

    def ids_and_labels(self, split: str) -> Iterator[tuple[bytes, str]]:
        """Yield id and label of the images of a split."""
        return self.query("SELECT id, label FROM images WHERE split = ? ORDER BY id", (split,))

    def ids_and_slices(self, split: str) -> Iterator[tuple[bytes, str]]:
        """Yield id and slices of the images of a split."""
        return self.query("SELECT id, slices FROM images WHERE split = ? ORDER BY id", (split,))

    def stored_images(
        self, split: str, first: bytes = b"", limit: int = -1
    ) -> Iterator[tuple[str, StoredImage]]:
        """Yield label and location of images of a split, from the id `first`."""
        rows = self.query(
            f"SELECT label, {_STORED} FROM images WHERE split = ? AND id >= ?"  # noqa: S608
            " ORDER BY id LIMIT ?",
            (split, first, limit),
        )
        return ((label, StoredImage._make(stored)) for label, *stored in rows)

    def stored_pair(self, pair: tuple[int, int]) -> list[StoredImage]:
        """Return the locations of two images by number, without removed ones."""
        rows = self.query(
            f"SELECT {_STORED} FROM images WHERE number IN (?,?) ORDER BY id",  # noqa: S608
            pair,
        )
        return list(map(StoredImage._make, rows))
