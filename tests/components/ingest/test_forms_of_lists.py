"""Each form of data with several labels an image is the dataset of a table with lists."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from components.ingest.ingest import ingest
from regraft_core.formats.manifests import DatasetManifest
from regraft_core.formats.options import IngestOptions
from regraft_core.runtime.errors import InputError
from tests.components.ingest.conftest import write_classes
from tests.components.ingest.forms import CLASSES, Items, coco, items_of, tar_of, voc, write_files

Lists = list[tuple[str, ...]]
Write = Callable[[Path, Items, Lists], Path]


def read(source: Path, out: Path) -> DatasetManifest:
    return ingest([str(source)], out, IngestOptions(processes=1, near_duplicates="off"))


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


def embedded(folder: Path, items: Items, lists: Lists) -> Path:
    images = [{"bytes": data, "path": name} for name, _, data in items]
    table = pyarrow.table({"image": images, "label": list(map(list, lists))})
    parquet.write_table(table, folder / "t.parquet")
    return folder / "t.parquet"


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


@pytest.mark.parametrize("write", [embedded, web_dataset, coco_lists, voc_lists])
def test_a_form_with_lists_gives_the_dataset_of_a_table(
    write: Write, items: Items, lists: Lists, expected: str, tmp_path: Path
) -> None:
    found = read(write(tmp_path, items, lists), tmp_path / "dataset")
    assert found.digest == expected and not found.quarantined


def test_one_label_and_lists_in_one_source_are_refused(items: Items, tmp_path: Path) -> None:
    members = []
    for number, (_, label, data) in enumerate(items):
        text = json.dumps([label] if number else label).encode()
        members += [(f"{number}.png", data), (f"{number}.json", text)]
    with pytest.raises(InputError, match="expected one label an image, as in the sources before"):
        read(tar_of(tmp_path / "t.tar", members), tmp_path / "dataset")
