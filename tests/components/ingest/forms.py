"""The same few images in every form of data that ingest reads, for its tests."""

from __future__ import annotations

import csv
import io
import json
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import google_crc32c
import pyarrow
from pyarrow import feather, ipc, parquet

from regraft_core.formats.records import ImageRecord, write_records

CLASSES = ("cat", "dog")
Items = list[tuple[str, str, bytes]]
"""Name, label and bytes of each image."""


def items_of(folder: Path) -> Items:
    """Return the images of a folder of class folders."""
    files = sorted(folder.rglob("*.png"))
    return [(f"{file.parent.name}-{file.name}", file.parent.name, file.read_bytes())
            for file in files]  # fmt: skip


def write_files(folder: Path, items: Items) -> Path:
    """Write the images next to each other, without class folders."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, _, data in items:
        (folder / name).write_bytes(data)
    return folder


def json_lines(folder: Path, items: Items) -> Path:
    write_files(folder / "files", items)
    lines = [json.dumps({"path": f"files/{name}", "label": label}) for name, label, _ in items]
    (folder / "images.jsonl").write_text("\n".join(lines) + "\n")
    return folder / "images.jsonl"


def hugging_face(folder: Path, items: Items, kind: str = "csv") -> Path:
    write_files(folder, items)
    rows = [{"file_name": name, "label": label} for name, label, _ in items]
    file = folder / f"metadata.{kind}"
    if kind == "parquet":
        parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    elif kind == "jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        with open(file, "w", newline="") as opened:
            writer = csv.DictWriter(opened, ["file_name", "label"])
            writer.writeheader()
            writer.writerows(rows)
    return folder


def embedded_table(items: Items, *, structs: bool = True) -> pyarrow.Table:
    """Return a table as `datasets` writes it: structs of bytes and path, numbered classes."""
    images: list[Any] = [{"bytes": data, "path": name} for name, _, data in items]
    if not structs:
        images = [data for *_, data in items]
        return pyarrow.table({"image": images, "label": [label for _, label, _ in items]})
    features = {"label": {"names": list(CLASSES), "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    labels = [CLASSES.index(label) for _, label, _ in items]
    return pyarrow.table({"image": images, "label": labels}).replace_schema_metadata(metadata)


def parquet_table(folder: Path, items: Items) -> Path:
    parquet.write_table(embedded_table(items), folder / "images.parquet", row_group_size=7)
    return folder / "images.parquet"


def feather_table(folder: Path, items: Items) -> Path:
    feather.write_feather(embedded_table(items, structs=False), str(folder / "images.feather"))
    return folder / "images.feather"


def arrow_stream(folder: Path, items: Items) -> Path:
    table = embedded_table(items)
    with ipc.new_stream(str(folder / "images.arrow"), table.schema) as stream:
        stream.write_table(table, max_chunksize=9)
    return folder / "images.arrow"


def coco(folder: Path, items: Items, boxes: list[dict[str, Any]] | None = None) -> Path:
    """Write `instances_all.json` in the folder of COCO; by default one whole box per image."""
    write_files(folder / "images", items)
    (folder / "annotations").mkdir()
    images = [{"id": number, "file_name": name} for number, (name, *_) in enumerate(items)]
    whole = [
        {"image_id": number, "category_id": CLASSES.index(label), "bbox": [0, 0, 64, 64]}
        for number, (_, label, _) in enumerate(items)
    ]
    names = [{"id": number, "name": name} for number, name in enumerate(CLASSES)]
    document = {"images": images, "annotations": boxes or whole, "categories": names}
    (folder / "annotations" / "instances_all.json").write_text(json.dumps(document))
    return folder


def voc(folder: Path, items: Items, box: str = "1,1,64,64") -> Path:
    write_files(folder / "JPEGImages", items)
    (folder / "Annotations").mkdir()
    corners = zip(("xmin", "ymin", "xmax", "ymax"), box.split(","), strict=True)
    edges = "".join(f"<{name}>{value}</{name}>" for name, value in corners)
    for name, label, _ in items:
        text = (
            f"<annotation><filename>{name}</filename><object><name>{label}</name>"
            f"<bndbox>{edges}</bndbox></object></annotation>"
        )
        (folder / "Annotations" / f"{Path(name).stem}.xml").write_text(text)
    return folder


def tar_of(file: Path, members: list[tuple[str, bytes]], mode: str = "w") -> Path:
    with tarfile.open(file, mode) as archive:  # type: ignore[call-overload]
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return file


def web_dataset(folder: Path, items: Items, kind: str = "cls") -> Path:
    """Write two shards and return their pattern."""
    for shard in range(2):
        members = []
        for number, (_, label, data) in enumerate(items[shard::2]):
            text = json.dumps({"label": label}) if kind == "json" else label
            members += [(f"{number:04d}.png", data), (f"{number:04d}.{kind}", text.encode())]
        tar_of(folder / f"images-{shard:06d}.tar", members)
    return folder / "images-{000000..000001}.tar"


def tfds(folder: Path, items: Items) -> Path:
    """Write a built data set of two shards; its examples are those of records with other names."""
    features = {
        "image": {"pythonClassName": "Image", "image": {"shape": {}, "dtype": "uint8"}},
        "label": {"pythonClassName": "ClassLabel", "classLabel": {"numClasses": "2"}},
    }
    version = folder / "pets" / "1.0.0"
    version.mkdir(parents=True)
    (version / "features.json").write_text(json.dumps({"featuresDict": {"features": features}}))
    shards = [items[::2], items[1::2]]
    lengths = [str(len(shard)) for shard in shards]
    info = {"name": "pets", "fileFormat": "tfrecord",
            "splits": [{"name": "all", "shardLengths": lengths}]}  # fmt: skip
    (version / "dataset_info.json").write_text(json.dumps(info))
    (version / "label.labels.txt").write_text("\n".join(CLASSES) + "\n")
    for number, shard in enumerate(shards):
        file = version / f"pets-all.tfrecord-{number:05d}-of-00002"
        records = [ImageRecord(data, CLASSES.index(label), "", "") for _, label, data in shard]
        write_records(file, records)
        rename_features(file, {b"image/encoded": b"image", b"image/label": b"label"})
    return folder


def rename_features(file: Path, names: dict[bytes, bytes]) -> None:
    """Rename features of the examples in a TFRecord file."""
    from regraft_core.formats.records import _Example, read_examples

    with_frames = []
    for data in list(read_examples(file)):
        example = _Example.FromString(data)
        feature = example.features.feature
        for old, new in names.items():
            feature[new.decode()].CopyFrom(feature[old.decode()])
            del feature[old.decode()]
        with_frames.append(frame(example.SerializeToString()))
    file.write_bytes(b"".join(with_frames))


def set_labels(file: Path, labels: list[list[int]]) -> None:
    """Replace the label of each example in a TFRecord file by a list of numbers."""
    from regraft_core.formats.records import _Example, read_examples

    framed = []
    for data, numbers in zip(list(read_examples(file)), labels, strict=True):
        example = _Example.FromString(data)
        example.features.feature["label"].int64_list.value[:] = numbers
        framed.append(frame(example.SerializeToString()))
    file.write_bytes(b"".join(framed))


def frame(data: bytes) -> bytes:
    """Return the TFRecord of some data."""
    length = struct.pack("<Q", len(data))
    return length + _crc(length) + data + _crc(data)


def _crc(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


FORMS: dict[str, Callable[[Path, Items], Path]] = {
    "JSON lines": json_lines,
    "Hugging Face, CSV": hugging_face,
    "Hugging Face, JSON lines": lambda folder, items: hugging_face(folder, items, "jsonl"),
    "Hugging Face, Parquet": lambda folder, items: hugging_face(folder, items, "parquet"),
    "Parquet": parquet_table,
    "feather": feather_table,
    "Arrow stream": arrow_stream,
    "COCO": coco,
    "Pascal VOC": voc,
    "WebDataset": web_dataset,
    "WebDataset, JSON": lambda folder, items: web_dataset(folder, items, "json"),
    "WebDataset, text": lambda folder, items: web_dataset(folder, items, "txt"),
    "TensorFlow Datasets": tfds,
}
