"""TFRecord files written without TensorFlow equal TensorFlow's, and the reverse."""

from __future__ import annotations

from pathlib import Path

import pytest
import tensorflow as tf

from regraft_core.formats.records import (
    NO_LABEL,
    ImageRecord,
    parse_record,
    read_records,
    record_offsets,
    write_records,
)
from regraft_core.runtime.errors import InputError

RECORDS = [
    ImageRecord(b"\x00\xffimage", 0, "a" * 64, "cat/1.png"),
    ImageRecord(b"", 300, "b" * 64, "dög/\udcff.png"),
    ImageRecord(b"grouped", 1, "c" * 64, "cat/2.png", 2**63 - 1),
]
SEVERAL = [
    ImageRecord(b"image", NO_LABEL, "d" * 64, "1.png", labels=(0, 3, 300)),
    ImageRecord(b"none", NO_LABEL, "e" * 64, "2.png", labels=()),
]


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "r"
    assert write_records(path, RECORDS) == len(RECORDS)
    assert list(read_records(path)) == RECORDS


def test_tensorflow_reads_written_records(tmp_path: Path) -> None:
    write_records(tmp_path / "r", RECORDS)
    first, second, third = tf.data.TFRecordDataset(str(tmp_path / "r")).as_numpy_iterator()
    example = tf.train.Example.FromString(first)
    assert example.features.feature["image/encoded"].bytes_list.value[0] == RECORDS[0].encoded
    assert tf.train.Example.FromString(second).features.feature["image/label"].int64_list.value == [
        300
    ]
    grouped = tf.train.Example.FromString(third).features.feature
    assert grouped["image/group"].int64_list.value == [2**63 - 1]
    assert grouped["image/label"].int64_list.value == [1]
    assert "image/group" not in example.features.feature


def test_records_that_tensorflow_wrote_are_read(tmp_path: Path) -> None:
    def feature(value: bytes) -> tf.train.Feature:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    label = tf.train.Feature(int64_list=tf.train.Int64List(value=[7]))
    example = tf.train.Example(features=tf.train.Features(feature={
        "image/encoded": feature(b"x"), "image/label": label, "image/id": feature(b"i"),
        "image/path": feature(b"p")}))  # fmt: skip
    with tf.io.TFRecordWriter(str(tmp_path / "r")) as writer:
        writer.write(example.SerializeToString())
    assert list(read_records(tmp_path / "r")) == [ImageRecord(b"x", 7, "i", "p")]


def test_offsets_point_to_the_records(tmp_path: Path) -> None:
    path = tmp_path / "r"
    write_records(path, RECORDS)
    data = path.read_bytes()
    assert [parse_record(data[o : o + n]) for o, n in record_offsets(path)] == RECORDS


@pytest.mark.parametrize("label", [0, 1, 127, 128, 999, 70_000])
@pytest.mark.parametrize("length", [0, 5, 120, 200, 20_000])
def test_bytes_equal_those_of_protobuf(tmp_path: Path, label: int, length: int) -> None:
    write_records(tmp_path / "r", [ImageRecord(b"x" * length, label, "c" * 64, "dog/1.png")])
    (data,) = tf.data.TFRecordDataset(str(tmp_path / "r")).as_numpy_iterator()
    example = tf.train.Example.FromString(data)
    assert example.features.feature["image/label"].int64_list.value == [label]
    assert example.SerializeToString(deterministic=True) == data


def test_several_labels_are_stored_as_a_list_that_may_be_empty(tmp_path: Path) -> None:
    write_records(tmp_path / "r", SEVERAL)
    assert list(read_records(tmp_path / "r")) == SEVERAL
    for data, record in zip(
        tf.data.TFRecordDataset(str(tmp_path / "r")).as_numpy_iterator(), SEVERAL, strict=True
    ):
        example = tf.train.Example.FromString(data)
        assert tuple(example.features.feature["image/labels"].int64_list.value) == record.labels
        assert "image/label" not in example.features.feature
        assert example.SerializeToString(deterministic=True) == data


@pytest.mark.parametrize("damage", ["flip", "truncate", "header"])
def test_damage_is_detected(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "r"
    write_records(path, RECORDS)
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[20] ^= 1
    elif damage == "header":
        data[0] ^= 1
    path.write_bytes(data[:-3] if damage == "truncate" else data)
    with pytest.raises(InputError, match="damaged record"):
        list(read_records(path))
