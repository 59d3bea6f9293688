"""Images in TFRecord files, written and read without TensorFlow.

A record is a `tf.train.Example` with `image/encoded` (the stored bytes), `image/label` (index into
the manifest's classes), `image/id` (SHA-256 of the source bytes, hex), `image/path` (path in the
source) and `image/group` (a number that images of the same group share, such as near duplicates;
absent in older datasets). `image/slices`, the JSON list of the values of the slices, is only in
datasets that have slices. With several labels an image, `image/labels` replaces `image/label`: the
sorted class indices, of which there may be none. The framing is that of TFRecord: length, CRC of
the length, data, CRC of the data.

TensorFlow's own classes cannot be used, because `tensorflow.core.example` imports all of TensorFlow
(5 s in each worker process), and records are serialized here, because protobuf takes twice as long
to write a record of a small image.
"""

from __future__ import annotations

import functools
import json
import math
import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import google_crc32c
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from google.protobuf.message import DecodeError

from regraft_core.formats.manifest_storage import check_digest
from regraft_core.formats.manifests.dataset import DatasetManifest, Shard, Split
from regraft_core.formats.stored_artifacts import content_file
from regraft_core.runtime.errors import DataError, InputError

ENCODED, LABEL, ID, PATH = "image/encoded", "image/label", "image/id", "image/path"
GROUP, NO_GROUP = "image/group", -1
SLICES = "image/slices"
LABELS, NO_LABEL = "image/labels", -1

# The part of TensorFlow's example.proto and feature.proto that records use.
_EXAMPLE_PROTO = """
name: "example.proto" package: "tensorflow"
message_type { name: "BytesList"
  field { name: "value" number: 1 type: TYPE_BYTES label: LABEL_REPEATED } }
message_type { name: "Int64List"
  field { name: "value" number: 1 type: TYPE_INT64 label: LABEL_REPEATED } }
message_type { name: "Feature"
  field { name: "bytes_list" number: 1 type: TYPE_MESSAGE type_name: "BytesList" }
  field { name: "int64_list" number: 3 type: TYPE_MESSAGE type_name: "Int64List" } }
message_type { name: "Features"
  field { name: "feature" number: 1 type: TYPE_MESSAGE type_name: "FeatureEntry"
          label: LABEL_REPEATED }
  nested_type { name: "FeatureEntry" options { map_entry: true }
    field { name: "key" number: 1 type: TYPE_STRING }
    field { name: "value" number: 2 type: TYPE_MESSAGE type_name: "Feature" } } }
message_type { name: "Example"
  field { name: "features" number: 1 type: TYPE_MESSAGE type_name: "Features" } }
"""


class ImageRecord(NamedTuple):
    """One stored image: encoded bytes, class index, SHA-256 of its source, source path, group.

    `slices` are the values of the dataset's slices, in the order of its manifest. In a dataset with
    several labels an image, `labels` are the sorted class indices, and `label` is `NO_LABEL`.
    """

    encoded: bytes
    label: int
    id: str
    path: str
    group: int = NO_GROUP
    slices: tuple[str, ...] = ()
    labels: tuple[int, ...] | None = None


def _example_class() -> Any:
    """Return the message class, in a separate pool so that it never clashes with TensorFlow's."""
    pool = descriptor_pool.DescriptorPool()
    pool.Add(text_format.Parse(_EXAMPLE_PROTO, descriptor_pb2.FileDescriptorProto()))
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorflow.Example"))


_Example = _example_class()


def write_records(path: str | os.PathLike[str], records: Iterable[ImageRecord]) -> int:
    """Write `records` to a TFRecord file; return their number."""
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
    return map(parse_record, read_examples(path))


def read_examples(path: str | os.PathLike[str]) -> Iterator[bytes]:
    """Yield the data of the records of a TFRecord file, each a serialized `tf.train.Example`.

    Raises:
        InputError: the file is truncated or a checksum differs.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        while header := file.read(12):
            if len(header) < 12 or _masked_crc(header[:8]) != header[8:]:
                raise InputError(f"{path}: damaged record header")
            (length,) = struct.unpack("<Q", header[:8])
            if length > size:
                raise InputError(f"{path}: damaged record")
            data, crc = file.read(length), file.read(4)
            if len(data) < length or _masked_crc(data) != crc:
                raise InputError(f"{path}: damaged record")
            yield data


def example_values(data: bytes, names: Iterable[str]) -> list[list[bytes] | list[int]]:
    """Return the values of some features of a serialized `tf.train.Example`.

    They are bytes or integers; none if the feature is absent or of another kind.

    Raises:
        InputError: it is not an example.
    """
    try:
        found = _Example.FromString(data).features.feature
    except DecodeError as error:
        raise InputError("expected a serialized tf.train.Example") from error
    # Reading an absent key of a map of messages adds it.
    features = [found[name] if name in found else None for name in names]  # noqa: SIM401
    return [list(one.bytes_list.value or one.int64_list.value) if one else [] for one in features]


def read_split(dataset: str | os.PathLike[str], split: Split) -> Iterator[ImageRecord]:
    """Yield the images of one split of a dataset folder, in manifest order."""
    for shard in DatasetManifest.read(dataset).splits[split].shards:
        yield from read_records(shard_file(dataset, shard))


def spaced_records(dataset: str | os.PathLike[str], split: Split, images: int) -> list[ImageRecord]:
    """Return at most `images` records, evenly spaced over a split.

    Raises:
        DataError: the split is empty.
    """
    count = DatasetManifest.read(dataset).splits[split].count
    if not count:
        raise DataError(f"{dataset}: expected images in the {split} split, found none")
    indices = {math.floor(i * count / images) for i in range(images)}
    return [record for i, record in enumerate(read_split(dataset, split)) if i in indices]


def shard_file(dataset: str | os.PathLike[str], shard: Shard) -> Path:
    """Return the local path of a shard, whose content is compared with its digest once.

    Raises:
        InputError: it does not exist, or has another content.
    """
    path = content_file(dataset, shard.file)
    check_digest(path, shard.sha256, "ingest the images again")
    return path


def record_offsets(path: str | os.PathLike[str]) -> list[tuple[int, int]]:
    """Return offset and length of the data of each record in a TFRecord file."""
    offsets, offset, size = [], 0, Path(path).stat().st_size
    with open(path, "rb") as file:
        while offset < size:
            file.seek(offset)
            (length,) = struct.unpack("<Q", file.read(8))
            offsets.append((offset + 12, length))
            offset += 12 + length + 4
    return offsets


def parse_record(data: bytes) -> ImageRecord:
    """Parse one serialized `tf.train.Example`."""
    feature = _Example.FromString(data).features.feature
    group = feature[GROUP].int64_list.value if GROUP in feature else [NO_GROUP]
    return ImageRecord(
        encoded=feature[ENCODED].bytes_list.value[0],
        label=feature[LABEL].int64_list.value[0] if LABEL in feature else NO_LABEL,
        id=feature[ID].bytes_list.value[0].decode(),
        path=feature[PATH].bytes_list.value[0].decode("utf-8", "surrogateescape"),
        group=group[0],
        slices=tuple(json.loads(feature[SLICES].bytes_list.value[0])) if SLICES in feature else (),
        labels=tuple(feature[LABELS].int64_list.value) if LABELS in feature else None,
    )


def _serialize(record: ImageRecord) -> bytes:
    """Return the `tf.train.Example` of a record with sorted keys, as protobuf would write it."""
    encoded, identity = record.encoded, record.id.encode()
    path = record.path.encode("utf-8", "surrogateescape")
    several = record.labels is not None
    label = b"".join(map(_varint, record.labels or ())) if several else _varint(record.label)
    group = b"" if record.group == NO_GROUP else _varint(record.group)
    slices = json.dumps(record.slices).encode() if record.slices else b""
    features = b"".join(
        (
            _entry_head(ENCODED, _BYTES, len(encoded)), encoded,
            *((_entry_head(GROUP, _INTEGERS, len(group)), group) if group else ()),
            _entry_head(ID, _BYTES, len(identity)), identity,
            _entry_head(LABELS if several else LABEL, _INTEGERS, len(label)), label,
            _entry_head(PATH, _BYTES, len(path)), path,
            *((_entry_head(SLICES, _BYTES, len(slices)), slices) if slices else ()),
        )
    )  # fmt: skip
    return b"".join((b"\x0a", _varint(len(features)), features))


# Tags of a feature's list, of bytes or of integers.
_BYTES, _INTEGERS = b"\x0a", b"\x1a"


@functools.lru_cache(maxsize=1 << 14)
def _entry_head(key: str, kind: bytes, size: int) -> bytes:
    """Return what precedes a value of `size` bytes in an entry of the map of features.

    An entry nests a feature, its list and the value, each after its tag and length. A list of no
    integers has no value.
    """
    name = b"\x0a" + _varint(len(key)) + key.encode()
    value_head = b"\x0a" + _varint(size) if size or kind == _BYTES else b""
    list_head = kind + _varint(len(value_head) + size)
    feature_head = b"\x12" + _varint(len(list_head) + len(value_head) + size)
    head = name + feature_head + list_head + value_head
    return b"\x0a" + _varint(len(head) + size) + head


@functools.lru_cache(maxsize=1 << 14)
def _varint(value: int) -> bytes:
    parts = bytearray()
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def _masked_crc(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)
