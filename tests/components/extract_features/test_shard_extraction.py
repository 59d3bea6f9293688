"""Extraction by workers: parts of a view, complete shards, and the same bits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from components.extract_features.extract_features import extract_features
from components.extract_features.shard_extraction import (
    IMAGES_PER_TASK,
    ShardPair,
    extract_shards,
    split_tasks,
)
from components.extract_features.shard_store import ShardStore
from regraft_core.formats.manifests.dataset import Shard
from regraft_core.formats.manifests.features import FeatureShard
from regraft_core.formats.options.extract_features import FeatureOptions
from regraft_core.formats.records import ImageRecord, write_records
from regraft_core.parallel.local_processes import LocalProcesses
from regraft_core.runtime.errors import DataError
from regraft_core.training.feature_store import LABELS


def pair(number: int, count: int, view: int = 0) -> ShardPair:
    shard = Shard(file=f"train-{number}.tfrecord", count=count, sha256="0" * 64)
    stem = f"train-{number}.view{view}"
    return shard, FeatureShard(stem=stem, split="train", view=view, count=count)


def test_a_task_has_shards_of_one_view() -> None:
    half = IMAGES_PER_TASK // 2
    shards = [pair(number, half, view) for view in range(2) for number in range(3)]
    parts = [[info.stem for _, info in part] for part in split_tasks(shards)]
    assert parts == [
        ["train-0.view0", "train-1.view0"], ["train-2.view0"],
        ["train-0.view1", "train-1.view1"], ["train-2.view1"],
    ]  # fmt: skip


@pytest.mark.parametrize("found", [4, 6])
def test_a_shard_with_another_number_of_images_is_an_error(tmp_path: Path, found: int) -> None:
    shard, info = pair(0, 5)
    records = [ImageRecord(b"image", 0, str(number), "a.png") for number in range(found)]
    write_records(tmp_path / shard.file, records)
    store = ShardStore(tmp_path / "features", {LABELS: ("int32", [])}, marked=False)

    def forward(shards: object, view: int) -> Iterator[dict[str, np.ndarray]]:
        yield {LABELS: np.zeros(found, np.int32)}

    with pytest.raises(DataError, match=r"expected 5 images in train-0\.tfrecord"):
        extract_shards(tmp_path, forward, store, [(shard, info)], lambda count: None)


def test_workers_write_the_same_features(dataset: Path, tmp_path: Path) -> None:
    options = FeatureOptions(backbone="tiny", views=2, augment="light")
    here = extract_features(dataset, tmp_path / "here", options)
    by_workers = extract_features(
        dataset, tmp_path / "by_workers", options, executor=LocalProcesses(1)
    )
    assert (by_workers.digest, by_workers.shards) == (here.digest, here.shards)
