"""The rows that are written to the catalog and read from it."""

from __future__ import annotations

from typing import NamedTuple


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
