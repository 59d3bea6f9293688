"""The catalog of all images during ingest: an SQLite file, so that memory use stays flat.

All SQL of ingest is here. The file is removed with the working folder.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

MEASURES = {
    "longer_side_px": "max(width, height)",
    "aspect_ratio": "1.0 * width / height",
    "stored_kb": "length / 1024.0",
}
"""What histograms are made of, as SQL."""

_CACHE_KIB = 2 * 1024
"""Small, because each process has its own, and memory must not grow with the images."""
_TABLES = """
CREATE TABLE images (
  number INTEGER PRIMARY KEY, id BLOB, key INTEGER, path BLOB, file BLOB, label TEXT,
  source_split TEXT, spool INTEGER, start INTEGER, length INTEGER, width INTEGER, height INTEGER,
  conversions TEXT, notes TEXT, hash64 INTEGER, thumbnail BLOB, split TEXT DEFAULT '',
  slices TEXT DEFAULT '',
  priority INTEGER AS (CASE source_split WHEN 'test' THEN 3 WHEN 'validation' THEN 2
    WHEN 'train' THEN 1 ELSE 0 END) VIRTUAL);
CREATE TABLE quarantine (path BLOB, reason TEXT, detail TEXT);
"""
_STORED = "id, path, file, spool, start, length, key, slices"
_BY_CLASS = """(SELECT split, source_split, class.value AS label
  FROM images, json_each(images.label) AS class)"""
"""The images with several labels, once for each of their classes."""


class ImageRow(NamedTuple):
    """One valid image, as a worker reports it.

    `spool` is the number of the spool file with the stored bytes (`start`, `length`), or -1 if they
    are those of the source's own file; only then is `file` not empty. `hash64` is signed, as
    SQLite's integers are. `path` and `file` are bytes, because file names need not be text. `label`
    is a class or, if images have several labels, the JSON list of its sorted classes. `split` is
    that of the source or, if it has none, of the key; it may change. `slices` is the JSON list of
    the values of its slices, or empty.
    """

    id: bytes
    key: int
    path: bytes
    file: bytes
    label: str
    source_split: str
    spool: int
    start: int
    length: int
    width: int
    height: int
    conversions: str
    notes: str
    hash64: int
    thumbnail: bytes | None
    split: str = ""
    slices: str = ""


class StoredImage(NamedTuple):
    """Where the stored bytes of an image are, and its key; the fields are those of `ImageRow`."""

    id: bytes
    path: bytes
    file: bytes
    spool: int
    start: int
    length: int
    key: int
    slices: str = ""


class Duplicate(NamedTuple):
    """One image of a group of duplicates."""

    number: int
    path: bytes
    label: str
    source_split: str


class Catalog:
    """The images and the quarantined files of one ingest; workers open it to read."""

    def __init__(self, path: Path, *, create: bool = False) -> None:
        self.path = path
        self._by_class = "images"
        mode = "rwc" if create else "ro"
        self._connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={mode}", uri=True, isolation_level=None
        )
        self._query = self._connection.execute
        self._query(f"PRAGMA cache_size=-{_CACHE_KIB}")
        if create:
            # An interrupted run starts again, so the file need not survive it.
            for pragma in ("journal_mode=OFF", "synchronous=OFF", "locking_mode=NORMAL"):
                self._query(f"PRAGMA {pragma}")
            self._connection.executescript(_TABLES)

    def close(self) -> None:
        """Close the database."""
        self._connection.close()

    def use_label_lists(self) -> None:
        """Read the label of each image as the list of its classes, from now on."""
        self._by_class = _BY_CLASS

    # Images and files as they are read.

    def add_images(self, images: Iterable[tuple]) -> None:
        """Insert valid images, each an `ImageRow` or the tuple of one."""
        columns = ",".join(ImageRow._fields)
        marks = ",".join("?" * len(ImageRow._fields))
        self._change(f"INSERT INTO images ({columns}) VALUES ({marks})", images)  # noqa: S608

    def quarantine(self, files: Iterable[tuple[bytes, str, str]]) -> None:
        """Insert excluded files: path, reason, detail."""
        self._change("INSERT INTO quarantine VALUES (?,?,?)", files)

    def remove_images(self, numbers: Iterable[int]) -> None:
        """Remove images by number."""
        self._change("DELETE FROM images WHERE number = ?", zip(numbers))

    def quarantined(self, limit: int = -1) -> Iterator[tuple[bytes, str, str]]:
        """Yield the first excluded files by path (all by default): path, reason, detail."""
        columns = "path, reason, detail"
        return self._query(
            f"SELECT {columns} FROM quarantine ORDER BY {columns} LIMIT ?",  # noqa: S608
            (limit,),
        )

    def count_by_reason(self) -> dict[str, int]:
        """Return the number of excluded files by reason."""
        return dict(self._query("SELECT reason, count(*) FROM quarantine GROUP BY 1 ORDER BY 1"))

    # Counts.

    def count(self) -> int:
        """Return the number of images."""
        return int(next(self._query("SELECT count(*) FROM images"))[0])

    def count_by_class(self) -> dict[str, int]:
        """Return the number of images by class."""
        return dict(
            self._query(
                f"SELECT label, count(*) FROM {self._by_class} GROUP BY 1 ORDER BY 1"  # noqa: S608
            )
        )

    def count_by_label(self, source_split: str | None = None) -> dict[str, int]:
        """Return the number of images by label, of all or of one split of the source.

        The list of the classes of an image with several labels is one label here.
        """
        return dict(
            self._query(
                "SELECT label, count(*) FROM images WHERE ?1 IS NULL OR source_split = ?1"
                " GROUP BY 1 ORDER BY 1",
                (source_split,),
            )
        )

    def count_labels_per_image(self) -> dict[int, int]:
        """Return the number of images by the number of their labels, which are lists."""
        return dict(
            self._query(
                "SELECT json_array_length(label), count(*) FROM images GROUP BY 1 ORDER BY 1"
            )
        )

    def count_label_pairs(self, limit: int) -> list[tuple[str, str, int]]:
        """Return the most frequent pairs of classes of an image, each with its images."""
        return self._query(
            "SELECT first.value, second.value, count(*) FROM images, json_each(label) AS first,"
            " json_each(label) AS second WHERE first.value < second.value"
            " GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2 LIMIT ?",
            (limit,),
        ).fetchall()

    def count_split_images(self) -> dict[str, int]:
        """Return the number of images by split."""
        return dict(self._query("SELECT split, count(*) FROM images GROUP BY 1 ORDER BY 1"))

    def count_by_split(self, source_split: str | None = None) -> dict[str, dict[str, int]]:
        """Return the number of images by split and class, of all or of one split of the source."""
        counts: dict[str, dict[str, int]] = {}
        for split, label, count in self._query(
            f"SELECT split, label, count(*) FROM {self._by_class}"  # noqa: S608
            " WHERE ?1 IS NULL OR source_split = ?1 GROUP BY 1, 2 ORDER BY 1, 2",
            (source_split,),
        ):
            counts.setdefault(split, {})[label] = count
        return counts

    def count_by_slice(self, index: int) -> dict[str, int]:
        """Return the number of images by value of a slice, given by its number."""
        return dict(
            self._query(
                "SELECT json_extract(slices, ?), count(*) FROM images GROUP BY 1 ORDER BY 1",
                (f"$[{index}]",),
            )
        )

    def count_conversions(self) -> dict[str, int]:
        """Return the number of images by kind of conversion."""
        return self._count_words("conversions")

    def count_notes(self) -> dict[str, int]:
        """Return the number of images by note, such as `dark`."""
        return self._count_words("notes")

    def histogram(self, measure: str, bins: int) -> tuple[float, float, dict[int, int]]:
        """Return minimum, maximum and counts by bin of a measure; no counts if all are equal."""
        value = MEASURES[measure]
        low, high = next(self._query(f"SELECT min({value}), max({value}) FROM images"))  # noqa: S608
        if low == high:
            return low, high, {}
        bin_of = f"min(CAST(({value} - ?1) * ?2 / (?3 - ?1) AS INTEGER), ?2 - 1)"
        counts = self._query(
            f"SELECT {bin_of}, count(*) FROM images GROUP BY 1",  # noqa: S608
            (low, bins, high),
        )
        return low, high, dict(counts)

    # Duplicates.

    def images_with_id(self, identity: bytes) -> list[Duplicate]:
        """Return the images with the same bytes, whose SHA-256 is `identity`."""
        self._index_ids()
        rows = self._query(
            "SELECT number, path, label, source_split FROM images WHERE id = ?", (identity,)
        )
        return list(map(Duplicate._make, rows))

    def relabel(self, labels: Iterable[tuple[str, int]]) -> None:
        """Set the labels of images: label, number."""
        self._change("UPDATE images SET label = ? WHERE number = ?", labels)

    def exact_duplicates(self) -> Iterator[list[Duplicate]]:
        """Yield each group of images with the same bytes; that of the test split is first."""
        self._index_ids()
        return self._groups(
            "id", "SELECT id FROM images GROUP BY id HAVING count(*) > 1", "id, priority DESC, path"
        )

    def perceptual_hashes(self) -> np.ndarray:
        """Return number and hash (int64 [n, 2]) of the images with a thumbnail, by id."""
        rows = self._query(
            "SELECT number, hash64 FROM images WHERE thumbnail IS NOT NULL ORDER BY id"
        )
        return np.fromiter(chain.from_iterable(rows), dtype=np.int64).reshape(-1, 2)

    def pixel_hashes(self) -> Iterator[tuple[int, int]]:
        """Yield hash and number of the images whose pixels are equal to another's, by hash."""
        return self._query(
            "SELECT hash64, number FROM images WHERE thumbnail IS NULL AND hash64 IN"
            " (SELECT hash64 FROM images WHERE thumbnail IS NULL GROUP BY 1 HAVING count(*) > 1)"
            " ORDER BY hash64, id"
        )

    def thumbnail(self, number: int) -> bytes | None:
        """Return the thumbnail of an image; None for small and flat images."""
        rows = self._query("SELECT thumbnail FROM images WHERE number = ?", (number,))
        thumbnail: bytes | None = next(rows)[0]
        return thumbnail

    def ids(self, numbers: Collection[int]) -> dict[int, bytes]:
        """Return ids by number; unlike numbers, they do not depend on the order of reading."""
        return self._by_number("id", numbers)

    def labels(self, numbers: Collection[int]) -> dict[int, str]:
        """Return labels by number."""
        return self._by_number("label", numbers)

    def keys(self, numbers: Collection[int]) -> dict[int, int]:
        """Return keys by number."""
        return self._by_number("key", numbers)

    def images(self, numbers: Collection[int]) -> dict[int, Duplicate]:
        """Return images by number."""
        rows = self._query(
            "SELECT number, path, label, source_split FROM images"
            " WHERE number IN (SELECT value FROM json_each(?))",
            (json.dumps(sorted(numbers)),),
        )
        return {row[0]: Duplicate._make(row) for row in rows}

    def path_of(self, number: int) -> bytes:
        """Return the path of an image."""
        return self._by_number("path", [number])[number]

    def count_by_key(self, keys: Collection[int]) -> dict[int, int]:
        """Return the number of images of each of some keys."""
        if not keys:
            return {}
        self._index_keys()
        return dict(
            self._query(
                "SELECT key, count(*) FROM images WHERE key IN (SELECT value FROM json_each(?))"
                " GROUP BY key",
                (json.dumps(sorted(keys)),),
            )
        )

    def change_keys(self, keys: Iterable[tuple[int, int]]) -> None:
        """Change the keys of images: new key, old key."""
        self._change("UPDATE images SET key = ? WHERE key = ?", keys)

    def groups_across_splits(self) -> Iterator[list[Duplicate]]:
        """Yield each group in several splits of the source; a test image, if any, is first."""
        if len(self.source_splits()) < 2:
            return iter(())
        self._index_keys()
        # The inner query reads the index alone.
        repeated = "SELECT key FROM images GROUP BY key HAVING count(*) > 1"
        return self._groups(
            "key",
            f"SELECT key FROM images WHERE key IN ({repeated}) GROUP BY key"  # noqa: S608
            " HAVING max(source_split) <> min(source_split)",
            "key, priority DESC, path",
        )

    def set_source_splits(self, splits: Iterable[tuple[str, int]]) -> None:
        """Set the source's splits of images: split, number."""
        self._change("UPDATE images SET source_split = ? WHERE number = ?", splits)

    # Splits.

    def source_splits(self) -> set[str]:
        """Return the splits of the source; an empty string if an image has none."""
        return {split for (split,) in self._query("SELECT DISTINCT source_split FROM images")}

    def use_source_splits(self) -> None:
        """Assign the splits of the source to the images that have one."""
        self._query(
            "UPDATE images SET split = source_split"
            " WHERE source_split <> '' AND split <> source_split"
        )

    def assign_by_key(self, source_split: str, ends: tuple[int, int]) -> None:
        """Assign images of one split of the source the splits of their keys, as `split_of` does."""
        split = "CASE WHEN key < ?1 THEN 'test' WHEN key < ?2 THEN 'validation' ELSE 'train' END"
        self._query(
            f"UPDATE images SET split = {split} WHERE source_split = ?3 AND split <> {split}",  # noqa: S608
            (*ends, source_split),
        )

    def assignments(self, source_split: str) -> list[tuple[int, int, str, str]]:
        """Return number, key, label and split of the images of one split of the source."""
        return self._query(
            "SELECT number, key, label, split FROM images WHERE source_split = ?", (source_split,)
        ).fetchall()

    def assign(self, splits: Iterable[tuple[str, int]]) -> None:
        """Assign splits to images: split, number."""
        self._change("UPDATE images SET split = ? WHERE number = ?", splits)

    # Images of a split, in the order of their ids.

    def index_splits(self) -> None:
        """Create the index for reading a split by id; call it when the splits are final."""
        # With all columns that the writers read, because the rows are not stored by id.
        self._query(f"CREATE INDEX by_split ON images (split, {_STORED}, label)")

    def ids_and_labels(self, split: str) -> Iterator[tuple[bytes, str]]:
        """Yield id and label of the images of a split."""
        return self._query("SELECT id, label FROM images WHERE split = ? ORDER BY id", (split,))

    def ids_and_slices(self, split: str) -> Iterator[tuple[bytes, str]]:
        """Yield id and slices of the images of a split."""
        return self._query("SELECT id, slices FROM images WHERE split = ? ORDER BY id", (split,))

    def stored_images(
        self, split: str, first: bytes = b"", limit: int = -1
    ) -> Iterator[tuple[str, StoredImage]]:
        """Yield label and location of images of a split, from the id `first`."""
        rows = self._query(
            f"SELECT label, {_STORED} FROM images WHERE split = ? AND id >= ?"  # noqa: S608
            " ORDER BY id LIMIT ?",
            (split, first, limit),
        )
        return ((label, StoredImage._make(stored)) for label, *stored in rows)

    def stored_pair(self, pair: tuple[int, int]) -> list[StoredImage]:
        """Return the locations of two images by number, without removed ones."""
        rows = self._query(
            f"SELECT {_STORED} FROM images WHERE number IN (?,?) ORDER BY id",  # noqa: S608
            pair,
        )
        return list(map(StoredImage._make, rows))

    def _index_ids(self) -> None:
        self._query("CREATE INDEX IF NOT EXISTS by_id ON images (id)")

    def _index_keys(self) -> None:
        """Create the index that finds the images of a key; most datasets do not need it."""
        self._query("CREATE INDEX IF NOT EXISTS by_key ON images (key)")

    def _by_number(self, column: str, numbers: Collection[int]) -> dict[int, Any]:
        return dict(
            self._query(
                f"SELECT number, {column} FROM images"  # noqa: S608
                " WHERE number IN (SELECT value FROM json_each(?))",
                (json.dumps(sorted(numbers)),),
            )
        )

    def _groups(self, column: str, values: str, order: str) -> Iterator[list[Duplicate]]:
        """Yield the images with equal values of a column, for the values of a query."""
        rows = self._query(
            f"SELECT {column}, number, path, label, source_split FROM images"  # noqa: S608
            f" WHERE {column} IN ({values}) ORDER BY {order}"
        )
        for _, group in groupby(rows, itemgetter(0)):
            yield [Duplicate._make(row[1:]) for row in group]

    def _count_words(self, column: str) -> dict[str, int]:
        """Count the words of a comma-separated column."""
        counts: dict[str, int] = {}
        for words, count in self._query(
            f"SELECT {column}, count(*) FROM images WHERE {column} <> '' GROUP BY 1"  # noqa: S608
        ):
            for word in words.split(","):
                counts[word] = counts.get(word, 0) + count
        return dict(sorted(counts.items()))

    def _change(self, statement: str, rows: Iterable[tuple]) -> None:
        """Run a statement for many rows, in one transaction."""
        self._query("BEGIN")
        self._connection.executemany(statement, rows)
        self._query("COMMIT")
