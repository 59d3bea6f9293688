"""The formats: round trip, strictness, atomic folders, digests."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from regraft_core.formats.manifest_storage import (
    MadeBy,
    digest_file,
    digest_of,
    staged_folder,
    write_text,
)
from regraft_core.formats.manifests.dataset import DatasetManifest, Shard, SplitInfo
from regraft_core.runtime.errors import InputError


@pytest.fixture
def manifest() -> DatasetManifest:
    split = SplitInfo(count=2, by_class={"cat": 1, "dog": 1}, shards=[Shard(
        file="train-00000-of-00001.tfrecord", count=2, sha256="ab")])  # fmt: skip
    return DatasetManifest(
        digest="d" * 64,
        made_by=MadeBy(step="ingest", version="0", seconds=1.5),
        classes=["cat", "dog"],
        splits={"train": split},
        sources=["folder"],
    )


def test_round_trip(tmp_path: Path, manifest: DatasetManifest) -> None:
    manifest.write(tmp_path)
    assert DatasetManifest.read(tmp_path) == manifest


def test_missing_manifest_names_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected dataset\.json in .*, found none"):
        DatasetManifest.read(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 1}, "expected schema_version 2, got 1"),
        ({"classes": "cat"}, "classes"),
        ({"unknown_key": 1}, "unknown_key"),
    ],
)
def test_another_format_is_an_error(
    tmp_path: Path, manifest: DatasetManifest, change: dict[str, object], message: str
) -> None:
    values = json.loads(manifest.model_dump_json()) | change
    (tmp_path / "dataset.json").write_text(json.dumps(values))
    with pytest.raises(InputError, match=message):
        DatasetManifest.read(tmp_path)


def test_damaged_json_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text('{"schema_version": 1,')
    with pytest.raises(InputError, match="cannot read"):
        DatasetManifest.read(tmp_path)


def test_staged_folder_appears_complete(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with staged_folder(target) as folder:
        (folder / "a").write_text("1")
        assert not target.exists()
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert (target / "a").read_text() == "1"


def test_staged_folder_leaves_nothing_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), staged_folder(tmp_path / "out") as folder:
        (folder / "a").write_text("1")
        _ = 1 / 0
    assert list(tmp_path.iterdir()) == []


def test_staged_folder_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "kept").write_text("1")
    with pytest.raises(InputError, match="found content"), staged_folder(tmp_path / "out"):
        pass
    assert (tmp_path / "out" / "kept").exists()


def test_write_text_replaces_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_text(path, "old")
    write_text(path, "new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_digests() -> None:
    assert digest_of({"a": 1, "b": [2]}) == digest_of({"b": [2], "a": 1})
    assert digest_of({"a": 1}) != digest_of({"a": 2})


def test_file_digest_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    assert digest_file(tmp_path / "f").startswith("ba7816bf8f01cfea")
