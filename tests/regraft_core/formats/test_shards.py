"""Shards: names without a path, and content that matches the manifest."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from pydantic import ValidationError

from regraft_core.formats.manifests.dataset import DatasetManifest, Shard
from regraft_core.formats.manifests.features import FeatureShard
from regraft_core.formats.records import read_split
from regraft_core.runtime.errors import InputError

BAD = ["../train-0.tfrecord", "/etc/passwd", "a/b", "..", ".hidden", "a\\b", "", "a\nb", "a\x00b"]


@pytest.mark.parametrize("name", BAD)
def test_a_shard_is_in_its_folder(name: str) -> None:
    with pytest.raises(ValidationError):
        Shard(file=name, count=1, sha256="a")
    with pytest.raises(ValidationError):
        FeatureShard(stem=name, split="train", view=0, count=1)


def test_a_manifest_that_names_another_folder_is_refused(dataset: Path, tmp_path: Path) -> None:
    copy = tmp_path / "dataset"
    shutil.copytree(dataset, copy)
    path = copy / DatasetManifest.file_name
    name = DatasetManifest.read(copy).splits["test"].shards[0].file
    path.write_text(path.read_text().replace(f'"{name}"', f'"../{name}"'))
    with pytest.raises(InputError, match=r"dataset\.json: splits\.test\.shards\.0\.file"):
        list(read_split(copy, "test"))


def test_a_shard_with_other_content_is_refused(dataset: Path, tmp_path: Path) -> None:
    copy = tmp_path / "dataset"
    shutil.copytree(dataset, copy)
    splits = DatasetManifest.read(copy).splits
    assert len(list(read_split(copy, "test"))) == splits["test"].count
    # A valid file with valid checksums of its records, but of another split.
    shutil.copyfile(copy / splits["train"].shards[0].file, copy / splits["test"].shards[0].file)
    with pytest.raises(InputError, match=r"expected SHA-256 .* found"):
        list(read_split(copy, "test"))


def test_a_missing_shard_is_named(dataset: Path, tmp_path: Path) -> None:
    copy = tmp_path / "dataset"
    shutil.copytree(dataset, copy)
    shard = DatasetManifest.read(copy).splits["test"].shards[0].file
    (copy / shard).unlink()
    with pytest.raises(InputError, match=f"{shard}: expected a file, found none"):
        list(read_split(copy, "test"))
