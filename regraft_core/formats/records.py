"""Images in TFRecord files, written and read without TensorFlow.

A record is a `tf.train.Example` with `image/encoded` (the stored bytes), `image/label` (index into
the manifest's classes), `image/id` (SHA-256 of the source bytes, hex) and `image/path` (where the
image came from). Framing and checksums are TFRecord's: length, CRC of it, data, CRC of it.
"""

from __future__ import annotations

import functools
import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import google_crc32c
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from regraft_core.formats.manifests import DatasetManifest, Split
from regraft_core.formats.stored_artifacts import content_file
from regraft_core.runtime.errors import InputError

ENCODED, LABEL, ID, PATH = "image/encoded", "image/label", "image/id", "image/path"


class ImageRecord(NamedTuple):
    """One stored image: encoded bytes, class index, SHA-256 of its source, source path."""

    encoded: bytes
    label: int
    id: str
    path: str


def _example_class() -> Any:
    """Build `tf.train.Example` in a pool of its own, so that it never clashes with TensorFlow's."""
    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="tensorflow")
    field_type = descriptor_pb2.FieldDescriptorProto

    def message(parent: Any, name: str) -> Any:
        created = parent.add()
        created.name = name
        return created

    def field(owner: Any, name: str, number: int, kind: int, *, of: str = "", many: bool = False,
              packed: bool = False, oneof: bool = False) -> None:  # fmt: skip
        label = field_type.LABEL_REPEATED if many else field_type.LABEL_OPTIONAL
        added = owner.field.add(name=name, number=number, type=kind, label=label)
        if of:
            added.type_name = f".tensorflow.{of}"
        if packed:
            added.options.packed = True
        if oneof:
            added.oneof_index = 0

    bytes_list = message(file.message_type, "BytesList")
    field(bytes_list, "value", 1, field_type.TYPE_BYTES, many=True)
    float_list = message(file.message_type, "FloatList")
    field(float_list, "value", 1, field_type.TYPE_FLOAT, many=True, packed=True)
    int64_list = message(file.message_type, "Int64List")
    field(int64_list, "value", 1, field_type.TYPE_INT64, many=True, packed=True)
    feature = message(file.message_type, "Feature")
    feature.oneof_decl.add(name="kind")
    for number, name in enumerate(("bytes_list", "float_list", "int64_list"), 1):
        of = "".join(part.title() for part in name.split("_"))
        field(feature, name, number, field_type.TYPE_MESSAGE, of=of, oneof=True)
    features = message(file.message_type, "Features")
    entry = message(features.nested_type, "FeatureEntry")
    entry.options.map_entry = True
    field(entry, "key", 1, field_type.TYPE_STRING)
    field(entry, "value", 2, field_type.TYPE_MESSAGE, of="Feature")
    field(features, "feature", 1, field_type.TYPE_MESSAGE, of="Features.FeatureEntry", many=True)
    example = message(file.message_type, "Example")
    field(example, "features", 1, field_type.TYPE_MESSAGE, of="Features")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorflow.Example"))


Example: Any = _example_class()


def _masked_crc(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


@functools.lru_cache(maxsize=1 << 14)
def _varint(value: int) -> bytes:
    parts = bytearray()
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


@functools.lru_cache(maxsize=1 << 14)
def _head(key: bytes, kind: bytes, size: int) -> bytes:
    """Return what precedes the value in an entry of the map of features, in protobuf's wire format.

    Args:
        key: the field of the entry's key.
        kind: tag of the feature's list, of bytes or of numbers.
        size: of the only element of the list.
    """
    # From the inside out: tag and length of value, list, feature and entry.
    value_head = b"\x0a" + _varint(size)
    size += len(value_head)
    list_head = kind + _varint(size)
    size += len(list_head)
    feature_head = b"\x12" + _varint(size)
    size += len(feature_head) + len(key)
    return b"".join((b"\x0a", _varint(size), key, feature_head, list_head, value_head))


def _key(name: str) -> bytes:
    return b"\x0a" + _varint(len(name)) + name.encode()


_ENCODED, _LABEL, _ID, _PATH = (_key(name) for name in (ENCODED, LABEL, ID, PATH))
_BYTES, _NUMBERS = b"\x0a", b"\x1a"


def _serialize(record: ImageRecord) -> bytes:
    """Return the `tf.train.Example` of a record, as protobuf would write it, keys sorted.

    By hand, as protobuf takes longer to build a message than zlib to unpack a small image.
    """
    encoded, identity = record.encoded, record.id.encode()
    label, path = _varint(record.label), record.path.encode("utf-8", "surrogateescape")
    features = b"".join(
        (
            _head(_ENCODED, _BYTES, len(encoded)), encoded,
            _head(_ID, _BYTES, len(identity)), identity,
            _head(_LABEL, _NUMBERS, len(label)), label,
            _head(_PATH, _BYTES, len(path)), path,
        )
    )  # fmt: skip
    return b"".join((b"\x0a", _varint(len(features)), features))


def write_records(path: str | os.PathLike[str], records: Iterable[ImageRecord]) -> int:
    """Write `records` to a TFRecord file; return how many."""
    count = 0
    with open(path, "wb") as file:
        for record in records:
            data = _serialize(record)
            length = struct.pack("<Q", len(data))
            file.write(b"".join((length, _masked_crc(length), data, _masked_crc(data))))
            count += 1
    return count


def read_records(path: str | os.PathLike[str]) -> Iterator[ImageRecord]:
    """Yield the records of a TFRecord file.

    Raises:
        InputError: the file is truncated or a checksum differs.
    """
    with open(path, "rb") as file:
        while header := file.read(12):
            if len(header) < 12 or _masked_crc(header[:8]) != header[8:]:
                raise InputError(f"{path}: damaged record header")
            (length,) = struct.unpack("<Q", header[:8])
            data, crc = file.read(length), file.read(4)
            if len(data) < length or _masked_crc(data) != crc:
                raise InputError(f"{path}: damaged record")
            yield record_of(data)


def record_of(data: bytes) -> ImageRecord:
    """Parse one serialized `tf.train.Example`."""
    feature = Example.FromString(data).features.feature
    return ImageRecord(
        encoded=feature[ENCODED].bytes_list.value[0],
        label=feature[LABEL].int64_list.value[0],
        id=feature[ID].bytes_list.value[0].decode(),
        path=feature[PATH].bytes_list.value[0].decode("utf-8", "surrogateescape"),
    )


def record_places(path: str | os.PathLike[str]) -> list[tuple[int, int]]:
    """Return offset and length of the data of each record in a TFRecord file."""
    places, offset, size = [], 0, Path(path).stat().st_size
    with open(path, "rb") as file:
        while offset < size:
            file.seek(offset)
            (length,) = struct.unpack("<Q", file.read(8))
            places.append((offset + 12, length))
            offset += 12 + length + 4
    return places


def read_split(dataset: str | os.PathLike[str], split: Split) -> Iterator[ImageRecord]:
    """Yield the images of one split of a dataset folder, in manifest order."""
    for shard in DatasetManifest.read(dataset).splits[split].shards:
        yield from read_records(content_file(dataset, shard.file))
