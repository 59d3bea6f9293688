"""The forward pass over stored images, which decodes ahead for a GPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from components.extract_features.engines import Arrays
from components.extract_features.forward_pass import build_forward
from regraft_core.formats.manifests.dataset import DatasetManifest
from regraft_core.formats.options.extract_features import FeatureOptions
from regraft_core.formats.records import read_records, shard_file


def mean_colors(pixels: tf.Tensor) -> Arrays:
    return {"gap": pixels.numpy().mean(axis=(1, 2))}


def test_batches_are_the_same_if_they_are_decoded_ahead(
    dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, options = DatasetManifest.read(dataset), FeatureOptions(backbone="tiny", batch_size=8)

    def batches() -> list[Arrays]:
        shards = [
            (one.count, read_records(shard_file(dataset, one)))
            for one in data.splits["train"].shards
        ]
        return list(build_forward(mean_colors, options, 32, data)(shards, 0))

    here = batches()
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: [kind])
    ahead = batches()
    assert sum(len(batch["gap"]) for batch in here) == data.splits["train"].count
    for one, other in zip(here, ahead, strict=True):
        assert one.keys() == other.keys()
        for name, array in one.items():
            np.testing.assert_array_equal(array, other[name])
