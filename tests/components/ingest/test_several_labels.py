"""A dataset with several labels an image: from a table to shards, splits, digest and card."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from components.ingest.card.label_counts import describe_lists
from components.ingest.catalog.catalog import Catalog
from components.ingest.catalog.columns import read_integers, read_words
from components.ingest.catalog.counts import (
    count_by_class,
    count_by_reason,
    count_label_pairs,
    count_split_images,
)
from components.ingest.ingest import ingest
from components.ingest.splits.assignment import assign_catalog
from components.ingest.splits.duplicates import resolve_duplicates
from regraft_core.formats.manifests.dataset import SPLITS, DatasetManifest
from regraft_core.formats.option_parsing import select_options
from regraft_core.formats.options.ingest import IngestOptions
from regraft_core.formats.records import read_split
from regraft_core.runtime.errors import DataError, InputError

CLASSES = ["blue", "green", "red"]
ONE_PROCESS = IngestOptions(processes=1)


def write_table(folder: Path, count: int = 60) -> Path:
    """Write images of noise, each with some of the classes, and a table with lists of them."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(5)
    lines = ["path\tlabel"]
    for number in range(count):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(folder / f"{number}.bmp")
        labels = [name for name in reversed(CLASSES) if rng.random() < 0.4]
        lines.append(f"{number}.bmp\t{json.dumps(labels)}")
    table = folder / "table.csv"
    table.write_text("\n".join(lines) + "\n")
    return table


def labels_of(table: Path) -> dict[str, list[str]]:
    rows = (line.split("\t") for line in table.read_text().splitlines()[1:])
    return {path: sorted(json.loads(labels)) for path, labels in rows}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory.mktemp("several"))


@pytest.fixture(scope="module")
def dataset(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dataset") / "data"
    ingest([str(table)], out, ONE_PROCESS)
    return out


def test_records_have_the_lists_of_the_table(table: Path, dataset: Path) -> None:
    manifest, expected = DatasetManifest.read(dataset), labels_of(table)
    assert (manifest.labels_per_image, manifest.classes) == ("several", CLASSES)
    found = {
        record.path: [CLASSES[index] for index in record.labels or ()]
        for split in SPLITS
        for record in read_split(dataset, split)
    }
    assert found == expected
    assert [] in found.values()


def test_counts_of_splits(dataset: Path) -> None:
    manifest = DatasetManifest.read(dataset)
    assert sum(split.count for split in manifest.splits.values()) == 60
    for split in SPLITS:
        records = list(read_split(dataset, split))
        info = manifest.splits[split]
        assert info.count == len(records)
        assert list(info.by_class.values()) == [
            sum(index in (record.labels or ()) for record in records) for index in range(3)
        ]
    for index, name in enumerate(CLASSES):
        counts = [manifest.splits[split].by_class[name] for split in SPLITS]
        expected = np.array([0.65, 0.15, 0.2]) * sum(counts)
        assert np.abs(counts - expected).max() < 1.5, (index, counts)


def test_the_card_shows_how_labels_occur(table: Path, dataset: Path) -> None:
    page = (dataset / "data_card.html").read_text()
    lists = labels_of(table).values()
    both = sum({"blue", "red"} <= set(labels) for labels in lists)
    assert "Labels that occur together" in page
    assert f'<td class="number">{both}</td>' in page
    assert f"{sum(map(len, lists)) / 60:.2f} labels" in page


def test_columns_make_the_same_dataset(table: Path, dataset: Path, tmp_path: Path) -> None:
    lines = ["path,red,green,blue"] + [
        ",".join([path, *(str(int(name in labels)) for name in ("red", "green", "blue"))])
        for path, labels in labels_of(table).items()
    ]
    columns = table.with_name("columns.csv")
    columns.write_text("\n".join(lines))
    options = select_options(
        IngestOptions, {"processes": 1, "label_columns": ["red", "green", "blue"]}
    )
    made = ingest([str(columns)], tmp_path / "data", options)
    assert made.digest == DatasetManifest.read(dataset).digest


def test_a_list_of_one_label_is_not_one_label(tmp_path: Path) -> None:
    digests = []
    write_table(tmp_path / "images")
    for name, row in (("one", "{}"), ("list", '["{}"]')):
        lines = [f"{number}.bmp\t{row.format(CLASSES[number % 3])}" for number in range(60)]
        table = tmp_path / "images" / f"{name}.csv"
        table.write_text("path\tlabel\n" + "\n".join(lines))
        digests.append(ingest([str(table)], tmp_path / name, ONE_PROCESS).digest)
    # The first is that of a dataset from before images could have several labels.
    assert digests[0] == "e7e5ebd919c272ce49ba5a7e07479de61b1712498874bbf9d1ec34027dafffbc"
    assert digests[1] != digests[0]


def test_one_label_needs_images_with_and_without_it(tmp_path: Path) -> None:
    write_table(tmp_path / "images")
    table = tmp_path / "images" / "one.csv"
    rows = [f"{number}.bmp,{number % 2}.0" for number in range(60)]
    table.write_text("path,red\n" + "\n".join(rows))
    options = IngestOptions(processes=1, label_columns=("red",))
    manifest = ingest([str(table)], tmp_path / "data", options)
    assert (manifest.classes, manifest.quarantined) == (["red"], {})
    assert sum(split.by_class["red"] for split in manifest.splits.values()) == 30
    table.write_text("path,red\n" + "\n".join(row.replace(",0", ",1") for row in rows))
    with pytest.raises(
        DataError, match="found 1: red 60; one is enough if there are images without"
    ):
        ingest([str(table)], tmp_path / "all", options)


def test_sources_of_two_forms_are_refused(
    table: Path, tmp_path: Path, make_classes: Callable[..., Path]
) -> None:
    folder = make_classes(tmp_path / "folder", ("blue", "red"), 3)
    with pytest.raises(InputError, match="expected several labels an image, as in the sources"):
        ingest([str(table), str(folder)], tmp_path / "out", ONE_PROCESS)
    options = IngestOptions(processes=1, label_separator=";")
    with pytest.raises(InputError, match="label_separator: expected a table as the source"):
        ingest([str(folder)], tmp_path / "out", options)
    assert not (tmp_path / "out").exists()


Make = Callable[[Sequence[dict[str, Any]]], Catalog]


def test_copies_with_other_lists_are_a_conflict(make_catalog: Make) -> None:
    catalog = make_catalog(
        [
            {"id": b"a", "label": '["blue"]'},
            {"id": b"a", "label": '["blue", "red"]'},
            {"id": b"b", "label": '["red"]'},
            {"id": b"b", "label": '["red"]'},
        ]
    )
    catalog.use_label_lists()
    resolve_duplicates(catalog, IngestOptions())
    assert count_by_reason(catalog) == {"exact-duplicate": 1, "label-conflict": 2}
    assert count_by_class(catalog) == {"red": 1}


def test_groups_stay_in_one_split(make_catalog: Make) -> None:
    catalog = make_catalog(
        [{"key": number // 3, "label": '["blue", "red"]'} for number in range(90)]
    )
    catalog.use_label_lists()
    assert assign_catalog(catalog, ["blue", "red"], IngestOptions(), several=True) == []
    keys, of_split = read_integers(catalog, "key"), read_words(catalog, "split").codes
    splits = set(zip(keys.tolist(), of_split.tolist(), strict=True))
    assert len(splits) == 30
    assert count_split_images(catalog) == {"test": 18, "train": 57, "validation": 15}


def test_a_label_without_enough_images_is_named(make_catalog: Make) -> None:
    catalog = make_catalog([{"label": '["blue"]'}] * 20 + [{"label": '["blue", "red"]'}] * 2)
    catalog.use_label_lists()
    with pytest.raises(DataError, match="found red 0; each class needs at least 3 images"):
        assign_catalog(catalog, ["blue", "red"], IngestOptions(), several=True)


def test_pairs_are_those_of_frequent_labels(make_catalog: Make) -> None:
    names = [f"{number:05}" for number in range(10_000)]
    every, some = json.dumps(names), json.dumps([names[5], names[9]])
    catalog = make_catalog([{"label": every}] * 2 + [{"label": some}] * 3)
    catalog.use_label_lists()
    assert count_label_pairs(catalog, 2) == [("00005", "00009", 5), ("00000", "00001", 2)]


def test_groups_that_leave_a_label_out_of_a_split_are_named(make_catalog: Make) -> None:
    catalog = make_catalog([{"key": number % 2, "label": '["blue"]'} for number in range(20)])
    catalog.use_label_lists()
    with pytest.raises(DataError, match="all images of a group are in one split: add groups"):
        assign_catalog(catalog, ["blue"], IngestOptions(), several=True, has_groups=True)


def test_lists_of_0_and_1_are_a_warning(make_catalog: Make) -> None:
    catalog = make_catalog([{"label": '["0", "1"]'}, {"label": '["0"]'}])
    catalog.use_label_lists()
    assert any("the labels of the lists are 0 and 1" in one for one in describe_lists(catalog))
