"""Folders as Hugging Face's `imagefolder` reads them: images and a metadata file with their names.

https://huggingface.co/docs/datasets/image_dataset. The file is at the top, or in the folder of each
split, and its column `file_name` is relative to it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from components.ingest.sources.folder_listing import is_folder, scan
from components.ingest.sources.folders import LabeledFile
from components.ingest.sources.json_text import json_lines
from components.ingest.sources.parquet_files import parquet_schema
from components.ingest.sources.source_context import SourceContext
from components.ingest.sources.split_names import split_of_name
from components.ingest.sources.table_files import file_in_folder
from components.ingest.sources.tables import table_rows
from regraft_core.runtime.errors import InputError

_NAMES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
_FILE_COLUMN = "file_name"


def has_metadata(folder: Path) -> bool:
    """Return whether a folder or one of its subfolders has a metadata file with file names."""
    return any(_names_files(file) for file, _ in _metadata_files(folder))


def metadata_images(folder: Path, context: SourceContext) -> Iterator[LabeledFile]:
    """Yield the images that the metadata files name.

    A row without a split has that of the first folder of its name, or of the metadata file's.

    Raises:
        InputError: a table cannot be read, or names a file outside the folder.
    """
    for file, inside in _metadata_files(folder):
        for row in table_rows(file, str(file), context.columns):
            if row.problem:
                yield LabeledFile("", row.file or file.name, "", problem=row.problem)
                continue
            name = f"{inside}{row.file}"
            top = name.partition("/")[0] if "/" in name else ""
            yield LabeledFile(
                file_in_folder(name, folder, context.name), name, row.label,
                row.split or split_of_name(top) or "", row.group, slices=row.slices,
                labels=row.labels,
            )  # fmt: skip


def _metadata_files(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield the metadata files and the folder that they are in, with a slash, relative to `folder`.

    Raises:
        InputError: a folder has two.
    """
    inner = [f"{entry.name}/" for entry in scan(os.fspath(folder)) if is_folder(entry)]
    for inside in ("", *inner):
        found = [file for name in _NAMES if (file := folder / inside / name).is_file()]
        if len(found) > 1:
            raise InputError(f"{found[0].parent}: expected one metadata file, found {len(found)}")
        if found:
            yield found[0], inside


def _names_files(file: Path) -> bool:
    """Return whether a metadata file has the column of file names."""
    if file.suffix == ".parquet":
        return _FILE_COLUMN in parquet_schema(file, str(file)).names
    if file.suffix == ".jsonl":
        _, record = next(json_lines(file, str(file)), (0, {}))
        return _FILE_COLUMN in record
    with open(file, encoding="utf-8-sig", errors="replace") as opened:
        return _FILE_COLUMN in opened.readline(1 << 16).lower()
