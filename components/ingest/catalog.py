"""The list of all images while they are sorted out: an SQLite file, so that memory stays flat.

Nobody reads it after the step; it is removed with the working folder.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

BAD_REASONS = (
    "missing-file", "unreadable", "empty-file", "not-an-image", "unsupported-format", "damaged",
    "too-many-pixels", "label-conflict",
)  # fmt: skip
"""Reasons that count as bad files; the others (duplicates, leakage) only drop a copy."""

_CACHE_KIB = 2 * 1024
"""Small, as every process has its own, and memory must not grow with the images."""
_TABLES = """
CREATE TABLE images (
  number INTEGER PRIMARY KEY, id BLOB, key INTEGER, path BLOB, file BLOB, label TEXT, given TEXT,
  grouped INTEGER, spool INTEGER, start INTEGER, length INTEGER, form TEXT, width INTEGER,
  height INTEGER, conversions TEXT, notes TEXT, hash64 INTEGER, thumb BLOB, split TEXT DEFAULT '',
  priority INTEGER AS (CASE given WHEN 'test' THEN 3 WHEN 'validation' THEN 2 WHEN 'train' THEN 1
    ELSE 0 END) VIRTUAL);
CREATE TABLE quarantine (path BLOB, reason TEXT, detail TEXT);
"""


class Image(NamedTuple):
    """One good image, as a worker reports it.

    `spool` is the file of stored bytes (`start`, `length`), or -1 where the source's own bytes
    are stored; only then is `file` not empty. `hash64` is signed, as SQLite's integers are. `path`
    and `file` are bytes, as file names need not be text. `split` is the one given, or that of the
    key; it may change.
    """

    id: bytes
    key: int
    path: bytes
    file: bytes
    label: str
    given: str
    grouped: int
    spool: int
    start: int
    length: int
    form: str
    width: int
    height: int
    conversions: str
    notes: str
    hash64: int
    thumb: bytes | None
    split: str = ""


class Catalog:
    """A thin wrapper of the database: opens, inserts, asks."""

    def __init__(self, path: Path, *, create: bool = False) -> None:
        self.path = path
        mode = "rwc" if create else "ro"
        self._connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={mode}", uri=True, isolation_level=None
        )
        self._connection.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
        if create:
            # A killed run starts anew, so the file need not survive one.
            for pragma in ("journal_mode=OFF", "synchronous=OFF", "locking_mode=NORMAL"):
                self._connection.execute(f"PRAGMA {pragma}")
            self._connection.executescript(_TABLES)

    def close(self) -> None:
        """Close the database."""
        self._connection.close()

    def add_images(self, images: Iterable[tuple]) -> None:
        """Insert what a worker found, each a `Image` or the tuple of one."""
        columns = ",".join(Image._fields)
        marks = ",".join("?" * len(Image._fields))
        self._many(f"INSERT INTO images ({columns}) VALUES ({marks})", images)  # noqa: S608

    def quarantine(self, rows: Iterable[tuple[bytes, str, str]]) -> None:
        """Insert files that are left out: path, reason, detail."""
        self._many("INSERT INTO quarantine VALUES (?,?,?)", rows)

    def index(self) -> None:
        """Make the index that equal images are found by."""
        self._connection.execute("CREATE INDEX by_id ON images (id)")

    def index_keys(self) -> None:
        """Make the index that the members of a group are found by; most datasets need none."""
        self._connection.execute("CREATE INDEX IF NOT EXISTS by_key ON images (key)")

    def index_splits(self) -> None:
        """Make the index that the writers of shards need."""
        # With all that they read, as rows in the order of ids lie scattered over the table.
        self._connection.execute(
            "CREATE INDEX by_split ON images (split, id, label, path, file, spool, start, length)"
        )

    def ask(self, question: str, values: tuple[object, ...] = ()) -> Iterator[tuple]:
        """Yield the rows of a question."""
        return self._connection.execute(question, values)

    def change(self, statement: str, rows: Iterable[tuple]) -> None:
        """Run one statement for many rows, in one transaction."""
        self._many(statement, rows)

    def draw(self, condition: str, ends: tuple[int, int]) -> None:
        """Give the images of a condition the splits of their keys, as `split_of` does."""
        drawn = "CASE WHEN key < ?1 THEN 'test' WHEN key < ?2 THEN 'validation' ELSE 'train' END"
        self.change(
            f"UPDATE images SET split = {drawn} WHERE {condition} AND split <> {drawn}",  # noqa: S608
            [ends],
        )

    def count(self, condition: str = "1") -> int:
        """Return how many images fulfill a condition."""
        return int(next(self.ask(f"SELECT count(*) FROM images WHERE {condition}"))[0])  # noqa: S608

    def reasons(self) -> dict[str, int]:
        """Return the number of quarantined files by reason."""
        return dict(self.ask("SELECT reason, count(*) FROM quarantine GROUP BY 1 ORDER BY 1"))

    def _many(self, statement: str, rows: Iterable[tuple]) -> None:
        self._connection.execute("BEGIN")
        self._connection.executemany(statement, rows)
        self._connection.execute("COMMIT")
