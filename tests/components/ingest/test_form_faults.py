"""Hostile and damaged inputs of each form of data: one clear line, or the quarantine."""

from __future__ import annotations

import gzip
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import feather, parquet

from components.ingest.ingest import ingest
from components.ingest.sources import arrow_messages, embedded_tables, tar_stream
from components.ingest.sources.pascal_voc import parse_annotation
from regraft_core.formats.options.ingest import IngestOptions
from regraft_core.runtime.errors import DataError, InputError
from tests.components.ingest.conftest import write_classes
from tests.components.ingest.forms import (
    Items,
    coco,
    embedded_table,
    frame,
    hugging_face,
    items_of,
    json_lines,
    tar_of,
    tfds,
    voc,
)

Write = Callable[[Path, Items], Path]


def read(source: object, tmp_path: Path, **values: Any) -> Any:
    options = IngestOptions(**{"processes": 1, "near_duplicates": "off"} | values)
    return ingest([str(source)], tmp_path / "dataset", options)


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> Items:
    return items_of(write_classes(tmp_path_factory.mktemp("faults") / "images", count=3))


def lines(text: str) -> Write:
    def write(folder: Path, _items: Items) -> Path:
        (folder / "t.jsonl").write_text(text)
        return folder / "t.jsonl"

    return write


def coco_with(**parts: Any) -> Write:
    def write(folder: Path, items: Items) -> Path:
        file = coco(folder, items) / "annotations" / "instances_all.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | parts))
        return folder

    return write


def member(name: str, kind: bytes = tarfile.REGTYPE) -> Write:
    """Write a tar of one sample and another member."""

    def write(folder: Path, items: Items) -> Path:
        tar_of(folder / "t.tar", [("0.png", items[0][2]), ("0.cls", b"cat")])
        with tarfile.open(folder / "t.tar", "a") as archive:
            other = tarfile.TarInfo(name)
            other.type, other.linkname = kind, "/etc/passwd"
            archive.addfile(other)
        return folder / "t.tar"

    return write


def damaged_tar(folder: Path, items: Items) -> Path:
    tar_of(folder / "t.tar", [("0.png", items[0][2]), ("0.cls", b"cat")])
    data = bytearray((folder / "t.tar").read_bytes())
    data[3] ^= 1
    (folder / "t.tar").write_bytes(data)
    (folder / "t.tar").rename(folder / "t-0.tar")
    return folder / "t-{0..0}.tar"


def cut_tar(folder: Path, items: Items) -> Path:
    tar_of(folder / "t-0.tar", [("0.png", items[0][2]), ("0.cls", b"cat")])
    with open(folder / "t-0.tar", "r+b") as file:
        file.truncate(2048)
    return folder / "t-{0..0}.tar"


def endless_tar(folder: Path, items: Items) -> Path:
    tar_of(folder / "t-0.tar", [(f"{number}.cls", items[0][2]) for number in range(200)])
    return folder / "t-{0..0}.tar"


def tfds_with(record: bytes) -> Write:
    def write(folder: Path, items: Items) -> Path:
        tfds(folder, items)
        next(folder.rglob("*-00001-of-00002")).write_bytes(record)
        return folder

    return write


def two_metadata(folder: Path, items: Items) -> Path:
    hugging_face(folder, items)
    return hugging_face(folder, items, "jsonl")


def no_images(folder: Path, _items: Items) -> Path:
    parquet.write_table(pyarrow.table({"text": ["a"], "label": ["b"]}), folder / "t.parquet")
    return folder / "t.parquet"


def damaged_arrow(folder: Path, items: Items) -> Path:
    feather.write_feather(embedded_table(items), str(folder / "t.feather"))
    data = (folder / "t.feather").read_bytes()
    (folder / "t.feather").write_bytes(data[: len(data) // 2])
    return folder / "t.feather"


def two_columns(folder: Path, items: Items) -> Path:
    images = pyarrow.array([items[0][2]])
    table = pyarrow.Table.from_arrays([images, images], names=["image", "image"])
    parquet.write_table(table, folder / "t.parquet")
    return folder / "t.parquet"


def not_text(folder: Path, items: Items) -> Path:
    label = pyarrow.StringArray.from_buffers(
        1, pyarrow.py_buffer(b"\0\0\0\0\1\0\0\0"), pyarrow.py_buffer(b"\xff")
    )
    table = pyarrow.table({"image": [items[0][2]], "label": label})
    parquet.write_table(table, folder / "t.parquet")
    return folder / "t.parquet"


def tfds_info(**values: Any) -> Write:
    def write(folder: Path, items: Items) -> Path:
        file = next(tfds(folder, items).rglob("dataset_info.json"))
        file.write_text(json.dumps(json.loads(file.read_text()) | values))
        return folder

    return write


def tfds_sequence(folder: Path, items: Items) -> Path:
    file = next(tfds(folder, items).rglob("features.json"))
    document = json.loads(file.read_text())
    features = document["featuresDict"]["features"]
    features["label"] = {"sequence": {"feature": {"featuresDict": {"features": {}}}}}
    file.write_text(json.dumps(document))
    return folder


def videos(folder: Path, _items: Items) -> Path:
    for name in ("cat", "dog"):
        (folder / name).mkdir()
        (folder / name / "clip.mp4").write_bytes(b"\0\0\0\x18ftypmp42")
    return folder


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lines("[" * 100_000), r"line 1: expected a JSON object: .*(too deeply|delimiter|value)"),
        (lines('{"a":' * 100_000), "line 1: expected a JSON object: nested too deeply"),
        (lines('{"path": "' + "x" * (1 << 20)), "line 1: expected at most 1048576 characters"),
        (lines('{"path": "a", "path": "b"}'), "the key 'path' is there twice"),
        (lines(r'{"path": "\ud800", "label": "a"}'), "line 1: .*a text is not Unicode"),
        (lines('{"path": "a", "label": NaN}'), "NaN is not JSON"),
        (lines('{"path": "a", "label": {"b": 1}}'), "row 1: expected a label or a list of labels"),
        (
            lines('{"path": "a"}'),
            r"expected the columns .* and label, .*found path; --label-column",
        ),
        (lines('{"path": "/etc/passwd", "label": "b"}'), "expected files below"),
        (coco_with(images=3), "expected COCO's lists of objects .*, found no images"),
        (coco_with(images=[{"id": 1, "file_name": "../../x.png"}]), "expected files below"),
        (coco_with(images=[{"id": 1, "file_name": "http://h/x.png"}]), "path of a file in the sou"),
        (coco_with(images=[{"id": 1}, {"id": 1}]), "expected different ids, found one twice"),
        (coco_with(categories=[{"name": "cat"}]), "expected a number as id, got None"),
        (
            coco_with(annotations=[{"image_id": 0, "category_id": 0, "bbox": [0, 0, 1e999, 1]}]),
            "is not JSON",
        ),
        (member("1.png", tarfile.SYMTYPE), "member '1.png' is a link or a special file"),
        (member("1.png", tarfile.LNKTYPE), "member '1.png' is a link or a special file"),
        (member("/etc/1.png"), "member '/etc/1.png' has an absolute or empty name"),
        (member("a/../../1.png"), "member 'a/../../1.png' leads outside the archive"),
        (damaged_tar, "found a header with another checksum"),
        (cut_tar, "truncated or damaged tar"),
        (
            endless_tar,
            "found more than 100 members; increase --max-archive-members if the source is trusted",
        ),
        (lambda folder, _: folder / "no-{0..3}.tar", "expected the shard .*no-0.tar, found none"),
        (lambda folder, _: folder / "no-{3..0}.tar", "expected a range of 1 to 100000 shards"),
        (tfds_info(fileFormat="array_record"), "in tfrecord files, found array_record; build it"),
        (tfds_info(splits=[3]), "expected splits with the lengths of their shards"),
        (tfds_info(splits=[{"name": "../x", "shardLengths": [1]}]), "expected the shard"),
        (tfds_sequence, "expected lists of labels, found lists of others"),
        (two_columns, "expected different columns, found two of one name"),
        (not_text, "expected a Parquet or Arrow table: .*can't decode byte 0xff"),
        (two_metadata, "expected one metadata file, found 2"),
        (no_images, "expected the columns path, uri or file_name and label"),
        (damaged_arrow, "expected a Parquet or Arrow table"),
        (tfds_with(b""), "expected 3 records, found 0"),
        (tfds_with(frame(b"\x0a\xff")), "expected a serialized tf.train.Example"),
        (tfds_with(b"\xff" * 64), "damaged record header"),
        (videos, r"cat/clip.mp4 is a video, which is not read; extract frames, such as by `ffmpeg"),
    ],
)
def test_a_hostile_or_damaged_source_is_refused_in_one_line(
    write: Write, message: str, items: Items, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message) as error:
        read(write(tmp_path, items), tmp_path, max_archive_members=100)
    assert "\n" not in str(error.value) and len(str(error.value)) < 1500
    assert not (tmp_path / "dataset").exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"crops": True}, "crops: expected boxes of COCO or Pascal VOC, found none"),
        ({"group_column": "patient"}, "expected the column 'patient' of --group-column; found"),
        ({"split_column": "fold"}, "expected the column 'fold' of --split-column; found"),
        ({"label_column": "kind"}, "expected the columns .* and kind, .*found path, label"),
    ],
)
def test_an_option_without_its_column_is_refused(
    values: dict[str, Any], message: str, items: Items, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        read(json_lines(tmp_path, items), tmp_path, **values)


@pytest.mark.parametrize("write", [coco, voc])
def test_a_form_without_columns_has_no_groups(write: Write, items: Items, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="only tables and records have columns, got 'patient'"):
        read(write(tmp_path, items), tmp_path, group_column="patient")


def test_a_formula_in_a_name_does_not_reach_the_quarantine_list(
    items: Items, tmp_path: Path
) -> None:
    members = [("=cmd|' /C calc'!A0.png", b""), ("=cmd|' /C calc'!A0.cls", b"cat")]
    for number, (_, label, data) in enumerate(items):
        members += [(f"{number}.png", data), (f"{number}.cls", label.encode())]
    tar_of(tmp_path / "=t.tar", members)
    (tmp_path / "=t.tar").rename(tmp_path / "t.tar")
    read(tmp_path / "t.tar", tmp_path, max_invalid_fraction=0.5)
    text = (tmp_path / "dataset" / "quarantine.csv").read_text()
    assert "cmd" in text and not any(line.startswith("=") for line in text.splitlines())


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ([("9.png", b"x")], "expected a path and a label"),
        ([("9.cls", b"cat")], "found no image"),
        ([("9.png", b"x"), ("9.jpg", b"x"), ("9.cls", b"cat")], "found png and jpg"),
        ([("9.png", b"x"), ("9.json", b'{"label": 1, "label": 2}')], "the key 'label' is there"),
        ([("9.png", b"x"), ("9.cls", b"\xff")], "a text in UTF-8"),
        ([("9.png", b"x"), ("9.cls", b"cat\ndog")], "without line breaks"),
    ],
)
def test_an_incomplete_sample_is_quarantined(
    members: list[tuple[str, bytes]], problem: str, items: Items, tmp_path: Path
) -> None:
    for number, (_, label, data) in enumerate(items):
        members = [*members, (f"{number}.png", data), (f"{number}.cls", label.encode())]
    tar_of(tmp_path / "t-0.tar", members)
    found = read(tmp_path / "t-{0..0}.tar", tmp_path, max_invalid_fraction=0.5)
    assert found.quarantined == {"invalid-row": 1}
    assert problem in (tmp_path / "dataset" / "quarantine.csv").read_text()


def test_a_tar_that_expands_hugely_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tar_stream, "MIN_LIMIT_BYTES", 1 << 20)
    tar_of(tmp_path / "t.tar", [("0.bin", bytes(8 << 20))])
    with gzip.open(tmp_path / "t-0.tar.gz", "wb") as file:
        file.write((tmp_path / "t.tar").read_bytes())
    with pytest.raises(InputError, match="expanded to more than 200 times its bytes"):
        read(tmp_path / "t-{0..0}.tar.gz", tmp_path)


def test_tables_that_expand_hugely_are_refused(
    items: Items, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded_tables, "MIN_LIMIT_BYTES", 1 << 10)
    monkeypatch.setattr(arrow_messages, "MAX_BATCH_BYTES", 1 << 20)
    same = pyarrow.table({"image": [items[0][2] * 4] * 600, "label": ["cat"] * 600})
    parquet.write_table(same, tmp_path / "t.parquet", compression="zstd")
    with pytest.raises(InputError, match="unpacked to more than 200 times its bytes"):
        read(tmp_path / "t.parquet", tmp_path)
    feather.write_feather(same, str(tmp_path / "t.feather"), compression="zstd")
    with pytest.raises(InputError, match="at most 1048576 bytes in a record batch, found"):
        read(tmp_path / "t.feather", tmp_path)
    codes = pyarrow.array(["cat"] * 3).dictionary_encode()
    small = pyarrow.table({"image": [items[0][2]] * 3, "label": codes})
    feather.write_feather(small, str(tmp_path / "d.feather"), compression="zstd")
    with pytest.raises(DataError, match="expected at least two classes"):
        read(tmp_path / "d.feather", tmp_path)


def test_annotations_of_images_that_are_not_listed_are_one_warning(
    items: Items, tmp_path: Path
) -> None:
    file = coco(tmp_path, items) / "annotations" / "instances_all.json"
    document = json.loads(file.read_text())
    document["annotations"] += [{"image_id": 99, "category_id": 0}] * 20_000
    file.write_text(json.dumps(document))
    found = read(tmp_path, tmp_path)
    assert not found.quarantined
    assert any("20000 annotations are of images that are not listed" in one
               for one in found.warnings)  # fmt: skip


def test_categories_of_one_name_are_one_class(items: Items, tmp_path: Path) -> None:
    file = coco(tmp_path, items) / "annotations" / "instances_all.json"
    document = json.loads(file.read_text())
    document["categories"].append({"id": 77, "name": document["categories"][0]["name"]})
    document["annotations"][0]["category_id"] = 77
    file.write_text(json.dumps(document))
    found = read(tmp_path, tmp_path)
    assert len(found.classes) == len(document["categories"]) - 1
    assert any("categories of one name are one class" in one for one in found.warnings)


ENTITIES = b"""<!DOCTYPE a [<!ENTITY x "xxxxxxxxxx"><!ENTITY y "&x;&x;&x;&x;&x;&x;">]>
<annotation><filename>&y;</filename></annotation>"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ENTITIES, "expected XML without a document type"),
        (b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotation/>', "without a document type"),
        (ENTITIES.decode().encode("utf-16"), "without a document type"),
        (b"<a>" * 100_000, "expected at most 16 nested elements"),
        (b"<annotation><filename>" + b"x" * 10_000, "expected at most 4096 characters"),
        (b"<annotation>", "expected XML: no element found"),
        (b"<annotation><size><width>1e400</width></size></annotation>", "a number, got '1e400'"),
        (b"<a><object><name>cat</name></object></a>", "expected a number, got ''"),
    ],
)
def test_a_hostile_annotation_of_voc_is_a_problem_of_its_image(text: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse_annotation(text)


def test_an_invalid_annotation_of_voc_is_quarantined(items: Items, tmp_path: Path) -> None:
    voc(tmp_path, items)
    (tmp_path / "Annotations" / "bad.xml").write_bytes(ENTITIES)
    found = read(tmp_path, tmp_path, max_invalid_fraction=0.5)
    assert found.quarantined == {"invalid-row": 1}


def test_a_pattern_of_many_shards_is_refused_before_it_is_expanded(tmp_path: Path) -> None:
    source = tmp_path / "{000000000..999999999}-{000000000..999999999}.tar"
    with pytest.raises(InputError, match="expected a range of 1 to 100000 shards"):
        read(source, tmp_path)


def test_web_dataset_in_class_folders_stays_an_archive(items: Items, tmp_path: Path) -> None:
    """Texts next to the images of class folders are not labels."""
    members = []
    for name, label, data in items:
        members += [(f"{label}/{name}", data), (f"{label}/{Path(name).stem}.txt", b"a caption")]
    tar_of(tmp_path / "t.tar", members)
    found = read(tmp_path / "t.tar", tmp_path)
    assert (found.classes, found.ignored) == (["cat", "dog"], len(items))
