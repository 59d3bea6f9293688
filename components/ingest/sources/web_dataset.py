"""WebDataset: tars of samples, each of files with one key, such as `000.jpg` and `000.cls`.

The tars are read as streams (`tar_stream.py`). Files of a sample follow each other; the part of the
name before the first dot is their key. The label is the text of `.cls`, the label in a `.json`
record, or the text of `.txt`, in this order.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from components.ingest.sources.folders import LabeledFile
from components.ingest.sources.json_text import check_text, parse_json
from components.ingest.sources.remote_stream import RemoteStream
from components.ingest.sources.source_context import MAX_IMAGE_BYTES
from components.ingest.sources.table_columns import Row, TableColumns, checked_row, values_of
from components.ingest.sources.tar_stream import open_tar
from regraft_core.formats.options.ingest import IngestOptions
from regraft_core.images.file_types import IMAGE_SUFFIXES

_IMAGES = frozenset(suffix[1:] for suffix in IMAGE_SUFFIXES)
_TEXTS = ("cls", "json", "txt")
_MAX_BYTES = dict.fromkeys(_IMAGES, MAX_IMAGE_BYTES) | dict.fromkeys(_TEXTS, 1 << 20)
_PEEKED_MEMBERS = 64
_KNOWN_BYTES, _KNOWN_LABELS = 256, 4096


def is_web_dataset(archive: Path, name: str, options: IngestOptions) -> bool:
    """Return whether a tar has samples, not class folders.

    An image next to a `.cls` of its key is a sample. Next to a `.json` or `.txt` it is one only if
    it is in no folder, because files in class folders may have such files, too.

    Raises:
        ArchiveError: the start of the tar is damaged or has an unsafe member.
    """
    found: dict[str, set[str]] = {}
    with open_tar(archive, name, options) as tar:
        for (member, _), _ in zip(tar.members(), range(_PEEKED_MEMBERS), strict=False):
            key, kind = _split(member)
            kinds = found.setdefault(key, set())
            kinds.add(kind)
            has_text = "cls" in kinds or ("/" not in key and kinds.intersection(_TEXTS))
            if has_text and not kinds.isdisjoint(_IMAGES):
                return True
    return False


def samples(
    archive: Path | RemoteStream, name: str, split: str, options: IngestOptions
) -> Iterator[LabeledFile]:
    """Yield the samples of a tar; one without an image or a label has a problem.

    Args:
        archive: the tar, or the stream of a remote one.
        name: of the archive, for messages and paths.
        split: of samples whose record has none.
        options: for the keys of records, and the limits of the tar.

    Raises:
        ArchiveError: as `open_tar`.
    """
    file = os.fspath(archive) if isinstance(archive, Path) else ""
    rows = _Rows(name, TableColumns.of(options))
    with open_tar(archive, name, options) as tar:
        sample: _Sample | None = None
        for member, size in tar.members():
            key, kind = _split(member)
            limit = _MAX_BYTES.get(kind)
            if limit is None:
                continue
            if sample is None or key != sample.key:
                if sample:
                    yield sample.labeled(file, split, rows)
                sample = _Sample(key)
            if size > limit:
                sample.refuse(f"a file of kind {kind} has {size} bytes")
            elif kind in _IMAGES and (start := tar.start()) is not None:
                sample.add(kind, _Part(start, size))
            else:
                sample.add(kind, tar.read())
        if sample:
            yield sample.labeled(file, split, rows)


def _split(name: str) -> tuple[str, str]:
    """Return key and kind of a member."""
    dot = name.find(".", name.rfind("/") + 1)
    return (name[:dot], name[dot + 1 :].lower()) if dot >= 0 else (name, "")


class _Part(NamedTuple):
    """Where an image is in a local tar that is not compressed; a worker reads it there."""

    start: int
    size: int


class _Sample:
    """The files of one key: texts and at most one image."""

    def __init__(self, key: str) -> None:
        self.key = key
        self._texts: dict[str, bytes] = {}
        self._image: bytes | _Part | None = None
        self._kind = ""
        self._problem = ""

    def add(self, kind: str, content: bytes | _Part) -> None:
        """Add a file."""
        if kind in self._texts or (kind in _IMAGES and self._kind):
            self.refuse(f"expected one image and one label, found {self._kind or kind} and {kind}")
        elif kind in _IMAGES:
            self._image, self._kind = content, kind
        elif isinstance(content, bytes):
            self._texts[kind] = content

    def refuse(self, problem: str) -> None:
        """Give the sample a problem, unless it has one."""
        self._problem = self._problem or problem

    def labeled(self, tar: str, split: str, rows: _Rows) -> LabeledFile:
        """Return the sample, with a problem if it has one."""
        shown = f"{rows.short_name}/{self.key}"
        if not self._kind:
            self.refuse("expected one image and one label, found no image")
        if self._problem:
            return LabeledFile("", shown, "", problem=self._problem)
        row = rows.read(self._texts)
        if row.problem:
            return LabeledFile("", shown, "", problem=row.problem)
        start, size, data = 0, None, self._image
        if isinstance(data, _Part):
            (start, size), data = data, None
        return LabeledFile(
            tar, f"{shown}.{self._kind}", row.label, row.split or split, row.group,
            slices=row.slices, labels=row.labels, data=data, start=start, size=size,
        )  # fmt: skip


class _Rows:
    """Reads the labels and columns of samples from their texts."""

    def __init__(self, name: str, wanted: TableColumns) -> None:
        self.short_name = name.rpartition("/")[2]
        self._wanted = wanted
        self._known: dict[bytes, Row] = {}

    def read(self, texts: Mapping[str, bytes]) -> Row:
        """Return label and columns: those of a JSON record, and a text.

        The text is the label if it is that of a class, or if the record has none.
        """
        record, text = texts.get("json"), texts.get("cls", texts.get("txt", b""))
        if record is not None:
            return self._row_of(record, text, has_class="cls" in texts)
        # Most samples have one of few labels.
        if (row := self._known.get(text)) is None:
            row = self._row_of(b"", text, has_class=True)
            if len(text) <= _KNOWN_BYTES and len(self._known) < _KNOWN_LABELS:
                self._known[text] = row
        return row

    def _row_of(self, record: bytes, text: bytes, *, has_class: bool) -> Row:
        wanted = self._wanted
        try:
            fields = _fields(record, wanted) if record else {}
            if has_class or fields.get(wanted.label) is None:
                fields[wanted.label] = text.decode("utf-8").strip()
        except ValueError as error:
            problem = f"expected a JSON record or a text in UTF-8: {error}"
            return Row("", "", "", "", problem)
        columns = wanted.locate(list(fields))
        if absent := [one for one in (wanted.group, wanted.split) if one and one not in fields]:
            problem = f"expected {absent[0]!r} in the JSON record, found none"
            return Row("", "", "", "", problem)
        return checked_row("sample", ["sample", *values_of(fields, columns)[1:]], wanted)


def _fields(text: bytes, wanted: TableColumns) -> dict[str, Any]:
    """Return a record with keys in lower case; a number or text alone is the label.

    Raises:
        ValueError: it is not JSON.
    """
    value = parse_json(text)
    if not isinstance(value, dict):
        check_text(str(value))
        return {wanted.label: value}
    return {key.strip().lower(): one for key, one in value.items()}
