"""Record batches of Arrow files and streams, whose sizes are checked before they are unpacked.

A compressed buffer starts with its size when unpacked, which Arrow allocates unchecked
(https://arrow.apache.org/docs/format/Columnar.html). The metadata of a message is a FlatBuffer:
tables start with the offset of a list of the offsets of their fields.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from components.ingest.sources.parquet_files import arrow_errors
from regraft_core.runtime.errors import InputError

MAX_BATCH_BYTES = 1 << 30
_FILE_MAGIC, _STREAM_MAGIC = b"ARROW1\0\0", b"\xff\xff\xff\xff"
_HEADER_FIELD, _BUFFERS_FIELD, _COMPRESSION_FIELD, _DICTIONARY_DATA_FIELD = 2, 2, 3, 1
_BUFFER = struct.Struct("<qq")


def is_arrow(file: Path) -> bool:
    """Return whether a file starts as an Arrow file or stream does (feather, IPC)."""
    with open(file, "rb") as opened:
        start = opened.read(8)
    return start == _FILE_MAGIC or start.startswith(_STREAM_MAGIC)


def arrow_schema(file: Path, name: str) -> Any:
    """Return the schema of an Arrow file or stream.

    Raises:
        InputError: it cannot be read.
    """
    with arrow_errors(name):
        from pyarrow import ipc

        return ipc.open_stream(_opened(file)).schema


def arrow_batches(file: Path, name: str) -> Iterator[Any]:
    """Yield the record batches; those that are not compressed stay in the file's own pages.

    Raises:
        InputError: it is damaged, or a batch is larger than `MAX_BATCH_BYTES` when unpacked.
    """
    with arrow_errors(name):
        from pyarrow import ipc

        messages = ipc.MessageReader.open_stream(_opened(file))
        reader = ipc.open_stream(_opened(file))
        messages.read_next_message()  # the schema
        while True:
            message = _next(messages)
            if message is None:
                break
            size = _unpacked_bytes(message)
            if size > MAX_BATCH_BYTES:
                raise InputError(
                    f"{name}: expected at most {MAX_BATCH_BYTES} bytes in a record batch, found "
                    f"{size}; write smaller ones"
                )
            if message.type == "record batch":
                batch = reader.read_next_batch()
                batch.validate(full=True)  # the offsets of a file are not to be trusted
                yield batch


def _opened(file: Path) -> Any:
    """Open a file at its first message; an Arrow file has a stream behind its first 8 bytes."""
    import pyarrow

    opened = pyarrow.memory_map(str(file))
    start = opened.read(8)
    opened.seek(8 if start == _FILE_MAGIC else 0)
    return opened


def _next(messages: Any) -> Any | None:
    try:
        return messages.read_next_message()
    except StopIteration:
        return None


def _unpacked_bytes(message: Any) -> int:
    """Return the bytes that are allocated when a record batch or a dictionary is unpacked."""
    data, body = message.metadata.to_pybytes(), memoryview(message.body)
    try:
        batch = _table(data, struct.unpack_from("<I", data)[0], _HEADER_FIELD)
        if message.type == "dictionary":
            batch = _table(data, batch, _DICTIONARY_DATA_FIELD)
        if not _field(data, batch, _COMPRESSION_FIELD):
            return 0
        buffers = _table(data, batch, _BUFFERS_FIELD)
        (count,) = struct.unpack_from("<I", data, buffers)
        total = 0
        for number in range(count):
            offset, length = _BUFFER.unpack_from(data, buffers + 4 + number * _BUFFER.size)
            if length:
                total += max(length, struct.unpack_from("<q", body, offset)[0])
    except struct.error as error:
        raise InputError("a message of the Arrow table is damaged") from error
    return total


def _table(data: bytes, table: int, number: int) -> int:
    """Return where the table or list that a field refers to is."""
    field = _field(data, table, number)
    return field + int(struct.unpack_from("<I", data, field)[0])


def _field(data: bytes, table: int, number: int) -> int:
    """Return where a field of a FlatBuffer's table is; 0 if it is absent."""
    fields = table - struct.unpack_from("<i", data, table)[0]
    entry = 4 + 2 * number
    if entry >= struct.unpack_from("<H", data, fields)[0]:
        return 0
    offset: int = struct.unpack_from("<H", data, fields + entry)[0]
    return table + offset if offset else 0
