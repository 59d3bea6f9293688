"""Each form of data becomes the same dataset as the same images in class folders."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest

from components.ingest.ingest import ingest
from regraft_core.formats.manifests.dataset import DatasetManifest
from regraft_core.formats.options.ingest import IngestOptions
from regraft_core.formats.records import read_split
from regraft_core.runtime.errors import DataError, InputError
from regraft_core.sources.state import source_state
from tests.components.ingest.conftest import write_classes
from tests.components.ingest.forms import (
    FORMS,
    Items,
    arrow_stream,
    coco,
    hugging_face,
    items_of,
    parquet_table,
    tar_of,
    voc,
    web_dataset,
    write_files,
)
from tests.components.ingest.web import Reply, Web


def read(source: object, out: Path, **values: Any) -> DatasetManifest:
    options = IngestOptions(**{"processes": 1, "near_duplicates": "off"} | values)
    return ingest([str(source)], out, options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of 2 x 12 images, and a copy of one."""
    return write_classes(tmp_path_factory.mktemp("forms") / "images", count=12)


@pytest.fixture(scope="module")
def items(folder: Path) -> Items:
    return items_of(folder)


@pytest.fixture(scope="module")
def expected(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> DatasetManifest:
    return read(folder, tmp_path_factory.mktemp("expected") / "dataset")


@pytest.mark.parametrize("form", FORMS)
def test_a_form_gives_the_dataset_of_the_same_class_folders(
    form: str, items: Items, expected: DatasetManifest, tmp_path: Path
) -> None:
    source = FORMS[form](tmp_path, items)
    found = read(source, tmp_path / "dataset")
    assert found.digest == expected.digest
    assert (found.classes, found.quarantined, found.warnings) == (
        expected.classes, {}, expected.warnings,
    )  # fmt: skip


SPLITS = ("train", "validation", "test")


def split_items(items: Items) -> dict[str, Items]:
    """Return the images of each split: of every six, four, one and one."""
    positions = {"train": (0, 1, 2, 3), "validation": (4,), "test": (5,)}
    return {split: [one for number, one in enumerate(items) if number % 6 in positions[split]]
            for split in SPLITS}  # fmt: skip


@pytest.fixture(scope="module")
def split_digest(items: Items, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("split")
    for split, own in split_items(items).items():
        for name, label, data in own:
            (folder / "in" / split / label).mkdir(parents=True, exist_ok=True)
            (folder / "in" / split / label / name).write_bytes(data)
    return read(folder / "in", folder / "dataset").digest


def hugging_face_splits(folder: Path, items: Items) -> Path:
    for split, own in split_items(items).items():
        hugging_face(folder / split, own, "jsonl")
    return folder


def hugging_face_names(folder: Path, items: Items) -> Path:
    """One metadata file at the top, with the folder of the split in each name."""
    own = [(f"{split}/{name}", label, data) for split, own in split_items(items).items()
           for name, label, data in own]  # fmt: skip
    for split in SPLITS:
        (folder / split).mkdir(parents=True)
    return hugging_face(folder, own)


def parquet_shards(folder: Path, items: Items) -> Path:
    (folder / "data").mkdir()
    for split, own in split_items(items).items():
        parquet_table(folder, own).rename(folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


def saved_to_disk(folder: Path, items: Items) -> Path:
    """As `DatasetDict.save_to_disk` writes it."""
    for split, own in split_items(items).items():
        (folder / split).mkdir()
        arrow_stream(folder, own).rename(folder / split / "data-00000-of-00001.arrow")
        (folder / split / "state.json").write_text("{}")
    return folder


def coco_splits(folder: Path, items: Items) -> Path:
    for split, own in split_items(items).items():
        coco(folder / "one", own)
        (folder / f"{split}2017").mkdir()
        for file in (folder / "one" / "images").iterdir():
            file.rename(folder / f"{split}2017" / file.name)
        (folder / "annotations").mkdir(exist_ok=True)
        (folder / "one/annotations/instances_all.json").rename(
            folder / "annotations" / f"instances_{split}2017.json"
        )
        shutil.rmtree(folder / "one")
    return folder


def voc_splits(folder: Path, items: Items) -> Path:
    (folder / "ImageSets/Main").mkdir(parents=True)
    for split, name in zip(SPLITS, ("train", "val", "test"), strict=True):
        stems = [Path(file).stem for file, *_ in split_items(items)[split]]
        (folder / "ImageSets/Main" / f"{name}.txt").write_text("\n".join(stems))
    return voc(folder, items)


def web_dataset_splits(folder: Path, items: Items) -> Path:
    for split, own in split_items(items).items():
        members = [(f"{number}.{kind}", data) for number, (_, label, image) in enumerate(own)
                   for kind, data in (("png", image), ("cls", label.encode()))]  # fmt: skip
        tar_of(folder / f"{split}-0000.tar", members)
    return folder


@pytest.mark.parametrize(
    "write",
    [hugging_face_splits, hugging_face_names, parquet_shards, saved_to_disk, coco_splits,
     voc_splits, web_dataset_splits],
)  # fmt: skip
def test_splits_of_a_form_are_kept(
    write: Callable[[Path, Items], Path], items: Items, split_digest: str, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    found = read(write(tmp_path / "in", items), tmp_path / "dataset")
    assert found.digest == split_digest and not found.quarantined


def test_a_form_in_an_archive_and_several_processes(
    items: Items, expected: DatasetManifest, tmp_path: Path
) -> None:
    voc(tmp_path / "VOCdevkit" / "VOC2012", items)
    with zipfile.ZipFile(tmp_path / "voc.zip", "w") as archive:
        for file in (tmp_path / "VOCdevkit").rglob("*.*"):
            archive.write(file, file.relative_to(tmp_path))
    assert read(tmp_path / "voc.zip", tmp_path / "a", processes=2).digest == expected.digest


def test_remote_shards_are_streamed_one_after_the_other(
    web: Web, items: Items, expected: DatasetManifest, tmp_path: Path
) -> None:
    pattern = web_dataset(tmp_path, items)
    shards = sorted(tmp_path.glob("*.tar"))
    for file in shards:
        data, version = file.read_bytes(), {"ETag": f'"{file.name}"'}
        broken = Reply(data, headers=version, send=len(data) // 2)
        web.plan(f"/{file.name}", broken, Reply(data, headers=version))
    cache = tmp_path / "cache"
    options = {"download_cache": str(cache), "download_backoff_s": 0.01}
    found = read(f"{web.address}/{pattern.name}", tmp_path / "dataset", **options)
    assert found.digest == expected.digest
    assert found.sources == [f"{web.address}/{pattern.name}"]
    requests = [(path, "Range" in headers) for path, headers in web.requests]
    assert requests == [(f"/{file.name}", resumed) for file in shards for resumed in (False, True)]
    assert not cache.exists()


def test_the_limits_of_archives_are_for_each_shard(
    web: Web, items: Items, expected: DatasetManifest, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    pattern = web_dataset(tmp_path / "in", items)
    files = sorted(pattern.parent.iterdir())
    for file in files:
        web.plan(f"/{file.name}", Reply(file.read_bytes()))
    limits = {
        "max_archive_members": 2 * len(items[::2]),
        "max_archive_bytes": max(file.stat().st_size for file in files),
    }
    sources = {"pattern": pattern, "folder": pattern.parent, "web": f"{web.address}/{pattern.name}"}
    for name, source in sources.items():
        assert read(source, tmp_path / name, **limits).digest == expected.digest
    fewer = limits | {"max_archive_members": limits["max_archive_members"] - 1}
    with pytest.raises(InputError, match=r"images-000000.tar: found more than \d+ members; inc"):
        read(pattern, tmp_path / "refused", **fewer)


def test_shards_in_a_store_are_streamed(
    bucket: str, items: Items, expected: DatasetManifest, tmp_path: Path
) -> None:
    pattern, cache = web_dataset(tmp_path, items), tmp_path / "cache"
    store = fsspec.core.url_to_fs(bucket)[0]
    for file in tmp_path.glob("*.tar"):
        store.pipe_file(f"{bucket}/{file.name}", file.read_bytes())
    found = read(f"{bucket}/{pattern.name}", tmp_path / "dataset", download_cache=str(cache))
    assert found.digest == expected.digest
    assert not cache.exists()


def test_the_state_of_a_pattern_is_that_of_its_shards(items: Items, tmp_path: Path) -> None:
    pattern = str(web_dataset(tmp_path, items))
    before = source_state(pattern)
    assert source_state(pattern) == before
    tar_of(tmp_path / "images-000001.tar", [])
    assert source_state(pattern) != before


def test_columns_are_named_by_options(items: Items, tmp_path: Path) -> None:
    write_files(tmp_path, items)
    rows = [
        {"path": name, "kind": label, "fold": SPLITS[number % 3], "patient": number // 3}
        for number, (name, label, _) in enumerate(items)
    ]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    named = {"label_column": "Kind", "split_column": "fold"}
    found = read(tmp_path / "t.jsonl", tmp_path / "a", **named)
    assert {split: info.count for split, info in found.splits.items()} == dict.fromkeys(SPLITS, 8)
    grouped = {"label_column": "kind", "group_column": "patient"}
    read(tmp_path / "t.jsonl", tmp_path / "b", **grouped)
    of_group: dict[int, set[str]] = {}
    patients = {row["path"]: row["patient"] for row in rows}
    for split in SPLITS:
        for record in read_split(tmp_path / "b", split):
            of_group.setdefault(patients[record.path], set()).add(split)
    assert len(of_group) == 8 and all(len(splits) == 1 for splits in of_group.values())


def test_an_image_or_a_group_in_two_given_splits_is_quarantined(
    items: Items, tmp_path: Path
) -> None:
    write_files(tmp_path, items)
    rows = [
        {"path": name, "label": label, "split": SPLITS[number % 3], "group": "p" * (number < 3)}
        for number, (name, label, _) in enumerate(items)
    ]
    rows.append(rows[5] | {"split": "train"})
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert read(tmp_path / "t.jsonl", tmp_path / "a").quarantined == {"leakage": 3}
    with pytest.raises(
        DataError, match=r"2 sets .* in several splits of the source; expected none"
    ):
        read(tmp_path / "t.jsonl", tmp_path / "b", leakage="fail")


def test_missing_labels_are_quarantined(items: Items, tmp_path: Path) -> None:
    write_files(tmp_path, items)
    rows: list[dict[str, Any]] = [{"path": name, "label": label} for name, label, _ in items]
    rows[5]["label"] = None
    del rows[0]["label"]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = read(tmp_path / "t.jsonl", tmp_path / "a", max_invalid_fraction=0.1)
    assert found.quarantined == {"invalid-row": 2}
    with pytest.raises(DataError, match=r"found 2 of 24: invalid-row 2; .*row 1: expected a path"):
        read(tmp_path / "t.jsonl", tmp_path / "b")
