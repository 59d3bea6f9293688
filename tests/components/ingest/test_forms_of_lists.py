"""Each form of data with several labels an image is the dataset of a table with lists."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from PIL import Image
from pyarrow import feather, parquet

from components.ingest.ingest import ingest
from components.ingest.sources.coco import coco_folder_images
from components.ingest.sources.folders import Tally
from components.ingest.sources.source_context import SourceContext
from regraft.array_source import from_arrays
from regraft_core.formats.manifests.dataset import SPLITS, DatasetManifest
from regraft_core.formats.options.ingest import IngestOptions
from regraft_core.formats.records import read_split
from regraft_core.runtime.errors import DataError
from tests.components.ingest.conftest import write_classes
from tests.components.ingest.forms import (
    CLASSES,
    Items,
    coco,
    items_of,
    set_labels,
    tar_of,
    tfds,
    voc,
    write_files,
)

Lists = list[tuple[str, ...]]
Write = Callable[[Path, Items, Lists], Path]


def read(source: Path, out: Path, **values: Any) -> DatasetManifest:
    options = IngestOptions(processes=1, near_duplicates="off", **values)
    return ingest([str(source)], out, options)


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> Items:
    return items_of(write_classes(tmp_path_factory.mktemp("lists") / "images", count=12))


@pytest.fixture(scope="module")
def lists(items: Items) -> Lists:
    """Of every four images: one cat, one dog, both, none."""
    kinds: Lists = [("cat",), ("dog",), ("cat", "dog"), ()]
    return [kinds[number % 4] for number in range(len(items))]


def json_lines(folder: Path, items: Items, lists: Lists) -> Path:
    write_files(folder, items)
    rows = [
        {"path": name, "label": labels} for (name, *_), labels in zip(items, lists, strict=True)
    ]
    (folder / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder / "t.jsonl"


def columns(lists: Lists) -> dict[str, list[int]]:
    return {name: [int(name in labels) for labels in lists] for name in CLASSES}


def metadata(folder: Path, items: Items, lists: Lists) -> Path:
    """Write a folder of Hugging Face with columns of 0 and 1."""
    write_files(folder / "hf", items)
    table = {"file_name": [name for name, *_ in items], **columns(lists)}
    parquet.write_table(pyarrow.table(table), folder / "hf" / "metadata.parquet")
    return folder / "hf"


def embedded(folder: Path, items: Items, lists: Lists) -> Path:
    images = [{"bytes": data, "path": name} for name, _, data in items]
    table = pyarrow.table({"image": images, "label": list(map(list, lists))})
    parquet.write_table(table, folder / "t.parquet")
    return folder / "t.parquet"


def numbered(folder: Path, items: Items, lists: Lists) -> Path:
    """Write lists of numbers, whose names are in the metadata of `datasets`."""
    features = {"label": {"feature": {"names": list(CLASSES)}, "_type": "Sequence"}}
    numbers = [[CLASSES.index(label) for label in labels] for labels in lists]
    table = pyarrow.table({"image": [data for *_, data in items], "label": numbers})
    described = {"huggingface": json.dumps({"info": {"features": features}})}
    feather.write_feather(table.replace_schema_metadata(described), str(folder / "t.arrow"))
    return folder / "t.arrow"


def embedded_columns(folder: Path, items: Items, lists: Lists) -> Path:
    table = pyarrow.table({"image": [data for *_, data in items], **columns(lists)})
    parquet.write_table(table, folder / "t.parquet")
    return folder / "t.parquet"


def tfds_lists(folder: Path, items: Items, lists: Lists) -> Path:
    tfds(folder, items)
    (version,) = folder.glob("*/*")
    document = json.loads((version / "features.json").read_text())
    features = document["featuresDict"]["features"]
    features["label"] = {"sequence": {"feature": features["label"], "length": "-1"}}
    (version / "features.json").write_text(json.dumps(document))
    for shard in range(2):
        numbers = [[CLASSES.index(label) for label in labels] for labels in lists[shard::2]]
        set_labels(version / f"pets-all.tfrecord-{shard:05d}-of-00002", numbers)
    return folder


def arrays(folder: Path, items: Items, lists: Lists) -> Path:
    """Write a table by `from_arrays`, whose images have the same pixels but other bytes."""
    images = [np.asarray(Image.open(io.BytesIO(data))) for *_, data in items]
    labels = np.array([[name in labels for name in CLASSES] for labels in lists])
    return from_arrays(images, labels, folder=folder / "arrays", classes=CLASSES)


def web_dataset(folder: Path, items: Items, lists: Lists) -> Path:
    members = []
    for number, ((*_, data), labels) in enumerate(zip(items, lists, strict=True)):
        members += [(f"{number}.png", data), (f"{number}.json", json.dumps(labels).encode())]
    return tar_of(folder / "t.tar", members)


def coco_lists(folder: Path, items: Items, lists: Lists) -> Path:
    boxes = [
        {"image_id": number, "category_id": CLASSES.index(label), "bbox": [0, 0, 9, 9]}
        for number, labels in enumerate(lists) for label in labels
    ]  # fmt: skip
    return coco(folder / "coco", items, boxes)


def voc_lists(folder: Path, items: Items, lists: Lists) -> Path:
    voc(folder / "voc", items)
    for (name, *_), labels in zip(items, lists, strict=True):
        box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
        objects = "".join(f"<object><name>{label}</name>{box}</object>" for label in labels)
        text = f"<annotation><filename>{name}</filename>{objects}</annotation>"
        (folder / "voc" / "Annotations" / f"{Path(name).stem}.xml").write_text(text)
    return folder / "voc"


@pytest.fixture(scope="module")
def expected(items: Items, lists: Lists, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("expected")
    found = read(json_lines(folder, items, lists), folder / "dataset")
    assert found.labels_per_image == "several"
    return found.digest


@pytest.mark.parametrize(
    "write", [embedded, numbered, web_dataset, tfds_lists, coco_lists, voc_lists]
)
def test_a_form_with_lists_gives_the_dataset_of_a_table(
    write: Write, items: Items, lists: Lists, expected: str, tmp_path: Path
) -> None:
    found = read(write(tmp_path, items, lists), tmp_path / "dataset")
    assert found.digest == expected and not found.quarantined


@pytest.mark.parametrize("write", [metadata, embedded_columns])
def test_a_form_with_columns_gives_the_dataset_of_a_table(
    write: Write, items: Items, lists: Lists, expected: str, tmp_path: Path
) -> None:
    source = write(tmp_path, items, lists)
    assert read(source, tmp_path / "dataset", label_columns=CLASSES).digest == expected
    # A column without a 1 is a class, too.
    (tmp_path / "cats").mkdir()
    only_cats = write(tmp_path / "cats", items, [("cat",)] * len(items))
    with pytest.raises(DataError, match="expected valid images in each class, found none in dog"):
        read(only_cats, tmp_path / "cats" / "dataset", label_columns=CLASSES)


def test_arrays_of_0_and_1_are_labels(items: Items, lists: Lists, tmp_path: Path) -> None:
    found = read(arrays(tmp_path, items, lists), tmp_path / "dataset")
    assert found.labels_per_image == "several" and not found.quarantined
    counts = [Counter(split.by_class) for split in found.splits.values()]
    assert sum(counts, Counter()) == Counter(name for labels in lists for name in labels)


def test_files_of_coco_decide_together(items: Items, lists: Lists, tmp_path: Path) -> None:
    """The images of the first file have one label each, and a crowd is a label."""
    folder = coco_lists(tmp_path, items, lists)
    file = folder / "annotations" / "instances_all.json"
    document = json.loads(file.read_text())
    images = document["images"]
    first = {"image_id": 0, "category_id": 0, "iscrowd": 1}
    parts = {
        "train": ([images[0], images[1]], [first, {**first, "image_id": 1, "category_id": 1}]),
        "val": (images[2:], [one for one in document["annotations"] if one["image_id"] > 1]),
    }
    for split, (listed, boxes) in parts.items():
        part = document | {"images": listed, "annotations": boxes}
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(part))
    file.unlink()
    context = SourceContext(tmp_path, IngestOptions(), Tally(), "coco")
    found = list(coco_folder_images(folder, context))
    assert [file.labels for file in found] == [("cat",), ("dog",), *lists[2:]]
    assert [file.split for file in found] == ["train"] * 2 + ["validation"] * (len(items) - 2)


def test_groups_with_several_labels_are_in_one_split(
    items: Items, lists: Lists, tmp_path: Path
) -> None:
    file = json_lines(tmp_path, items, lists)
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for number, row in enumerate(rows):
        row["group"] = f"patient {number % 8}"
    file.write_text("\n".join(map(json.dumps, rows)))
    options = {"validation_fraction": 0.25, "test_fraction": 0.25}
    read(file, tmp_path / "dataset", **options)
    splits: dict[str, set[str]] = {}
    groups = {row["path"]: row["group"] for row in rows}
    for split in SPLITS:
        for record in read_split(tmp_path / "dataset", split):
            splits.setdefault(groups[record.path], set()).add(split)
    assert [len(found) for found in splits.values()] == [1] * 8
    assert set.union(*splits.values()) == set(SPLITS)


def test_one_label_and_lists_in_one_source_are_refused(items: Items, tmp_path: Path) -> None:
    members = []
    for number, (_, label, data) in enumerate(items):
        text = json.dumps([label] if number else label).encode()
        members += [(f"{number}.png", data), (f"{number}.json", text)]
    with pytest.raises(DataError, match="expected one label, as of the images before, got"):
        read(tar_of(tmp_path / "t.tar", members), tmp_path / "dataset")
