"""Parquet and Arrow tables with the bytes of the images, as Hugging Face's `datasets` writes them.

The column of images has bytes, or structs of bytes and a path. Batches are small, and what a file
unpacks to is limited, so memory does not grow with the table.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from components.ingest.sources.archives import MAX_RATIO, MIN_LIMIT_BYTES
from components.ingest.sources.arrow_messages import arrow_batches, arrow_schema, is_arrow
from components.ingest.sources.folders import LabeledFile
from components.ingest.sources.parquet_files import (
    arrow_errors,
    check_lists,
    check_types,
    check_value_counts,
    is_bytes,
    parquet_schema,
)
from components.ingest.sources.source_context import MAX_IMAGE_BYTES, SourceContext
from components.ingest.sources.table_columns import FILE_COLUMNS, checked_row, values_of
from components.ingest.sources.table_files import file_in_folder
from components.ingest.sources.tables import is_parquet
from regraft_core.runtime.errors import InputError

_ROWS_PER_BATCH = 16
_MAX_GROUP_BYTES = 2 << 30
_BYTES, _PATH = "bytes", "path"
_IMAGE_NAMES = ("image", "img")


def has_embedded_images(file: Path, name: str) -> bool:
    """Return whether a file is an Arrow table, or one of Parquet with images instead of paths.

    Raises:
        InputError: it cannot be read.
    """
    if is_arrow(file):
        return True
    if not is_parquet(file):
        return False
    schema = _schema(file, name)
    names_files = {str(column).strip().lower() for column in schema.names} & set(FILE_COLUMNS)
    return any(_is_struct(field.type) for field in schema) or (
        not names_files and bool(_images(schema))
    )


def embedded_images(
    file: Path, name: str, split: str, context: SourceContext
) -> Iterator[LabeledFile]:
    """Yield the images of a table.

    Args:
        file: Parquet, or an Arrow file or stream.
        name: of the table, for messages and paths.
        split: of rows without one.
        context: of the source.

    Raises:
        InputError: it has no images or labels, is damaged, or unpacks to too much.
    """
    schema = _schema(file, name)
    image = _image_column(schema, name)
    columns = context.columns.find(schema.names, name, with_file=False)[1:]
    present = [one for one in columns if one is not None]
    check_types(schema, present, columns[0], name)
    classes = _class_names(schema, columns[0])
    left = max(MIN_LIMIT_BYTES, MAX_RATIO * file.stat().st_size)
    number, short = 0, name.rpartition("/")[2]
    for row in _rows(file, name, [image, *present]):
        number += 1
        encoded, path = _content(row[image])
        left -= len(encoded or b"")
        if left < 0:
            raise InputError(f"{name}: unpacked to more than {MAX_RATIO} times its bytes")
        shown = f"{short}/{path or f'{number:06d}'}"
        label, *others = values_of(row, columns)
        checked = checked_row(
            f"row {number}", [shown, _named(label, classes), *others], context.columns
        )
        problem = checked.problem or _problem(encoded, path, number)
        if problem:
            yield LabeledFile("", shown, "", problem=problem)
            continue
        yield LabeledFile(
            file_in_folder(path, file.parent, name) if encoded is None else "", shown,
            checked.label, checked.split or split, checked.group, slices=checked.slices,
            labels=checked.labels,
            data=encoded,
        )  # fmt: skip


def _content(value: Any) -> tuple[bytes | None, str]:
    """Return the bytes of an image and its path, as far as there are any."""
    if isinstance(value, dict):
        return value.get(_BYTES), str(value.get(_PATH) or "")
    return value, ""


def _problem(encoded: bytes | None, path: str, number: int) -> str:
    if encoded is None and not path:
        return f"row {number}: no image"
    if len(encoded or b"") > MAX_IMAGE_BYTES:
        return f"row {number}: an image of more than {MAX_IMAGE_BYTES} bytes"
    return ""


def _named(label: Any, classes: Sequence[str]) -> Any:
    """Return the name of a numbered class, or of each in a list; None for one without, as -1 is."""
    if isinstance(label, list):
        return [_named(one, classes) for one in label]
    if not classes or not isinstance(label, int):
        return label
    return classes[label] if 0 <= label < len(classes) else None


def _schema(file: Path, name: str) -> Any:
    """Return the schema of a table.

    Raises:
        InputError: it cannot be read, or has two columns of one name.
    """
    schema = arrow_schema(file, name) if is_arrow(file) else parquet_schema(file, name)
    if len(set(schema.names)) < len(schema.names):
        raise InputError(f"{name}: expected different columns, found two of one name")
    return schema


def _images(schema: Any) -> list[str]:
    """Return the columns that may have images: structs with bytes, otherwise bytes."""
    structs = [field.name for field in schema if _is_struct(field.type)]
    return structs or [field.name for field in schema if is_bytes(field.type)]


def _is_struct(kind: Any) -> bool:
    from pyarrow import types

    if not types.is_struct(kind) or kind.get_field_index(_BYTES) < 0:
        return False
    return is_bytes(kind.field(_BYTES).type)


def _image_column(schema: Any, name: str) -> str:
    """Return the column of images: the only one that can be, or the one with a usual name.

    Raises:
        InputError: there is none.
    """
    found = _images(schema)
    usual = [column for column in found if column.lower() in _IMAGE_NAMES]
    if len(found) == 1 or len(usual) == 1:
        return (usual or found)[0]
    raise InputError(
        f"{name}: expected one column of images (bytes, or structs of bytes and path), found "
        f"{', '.join(found) or 'none'} among {', '.join(schema.names)}"[:400]
    )


def _class_names(schema: Any, label: Any) -> list[str]:
    """Return the names of numbered classes that `datasets` writes to the schema's metadata."""
    try:
        text = (schema.metadata or {}).get(b"huggingface", b"{}")
        feature = json.loads(text)["info"]["features"][label]
        # Lists of classes are `[feature]`, or an object with their feature.
        feature = feature[0] if isinstance(feature, list) else feature.get("feature", feature)
        names = feature["names"]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return []
    return [str(name) for name in names] if isinstance(names, list) else []


def _rows(file: Path, name: str, columns: list[Any]) -> Iterator[dict[str, Any]]:
    """Yield the values of some columns, of which few rows are in memory at a time.

    Raises:
        InputError: the file is damaged, or a part of it is too large.
    """
    batches = _arrow_batches if is_arrow(file) else _parquet_batches
    with arrow_errors(name):
        for batch in batches(file, name, columns):
            check_lists(batch, name)
            yield from batch.to_pylist()


def _arrow_batches(file: Path, name: str, columns: list[Any]) -> Iterator[Any]:
    for batch in arrow_batches(file, name):
        chosen = batch.select(columns)
        for start in range(0, chosen.num_rows, _ROWS_PER_BATCH):
            yield chosen.slice(start, _ROWS_PER_BATCH)


def _parquet_batches(file: Path, name: str, columns: list[Any]) -> Iterator[Any]:
    from pyarrow import parquet

    opened = parquet.ParquetFile(file)
    for number in range(opened.metadata.num_row_groups):
        group = opened.metadata.row_group(number)
        check_value_counts(group, columns, name)
        size = group.total_byte_size
        if size > _MAX_GROUP_BYTES:
            raise InputError(
                f"{name}: expected at most {_MAX_GROUP_BYTES} bytes in a row group, found {size}; "
                "write smaller ones"
            )
    # Without threads, because worker processes are forked while this is open.
    yield from opened.iter_batches(_ROWS_PER_BATCH, columns=columns, use_threads=False)
