"""Labels of records as arrays: class indices, or an indicator of each class."""

from __future__ import annotations

from typing import Literal

import numpy as np

from regraft_core.formats.label_arrays import label_array
from regraft_core.formats.manifest_storage import MadeBy
from regraft_core.formats.manifests.dataset import DatasetManifest
from regraft_core.formats.records import NO_LABEL, ImageRecord


def dataset(labels_per_image: Literal["one", "several"]) -> DatasetManifest:
    return DatasetManifest(
        digest="d" * 64, made_by=MadeBy(step="ingest", version="0", seconds=1.0),
        classes=["cat", "dog", "owl"], labels_per_image=labels_per_image, splits={}, sources=[],
    )  # fmt: skip


def test_one_label_is_an_index() -> None:
    records = [ImageRecord(b"", 2, "a", "p"), ImageRecord(b"", 0, "b", "q")]
    found = label_array(records, dataset("one"))
    assert found.dtype == np.int32
    assert found.tolist() == [2, 0]


def test_several_labels_are_indicators() -> None:
    records = [
        ImageRecord(b"", NO_LABEL, "a", "p", labels=(0, 2)),
        ImageRecord(b"", NO_LABEL, "b", "q", labels=()),
    ]
    found = label_array(records, dataset("several"))
    assert found.dtype == np.uint8
    assert found.tolist() == [[1, 0, 1], [0, 0, 0]]
    assert label_array([], dataset("several")).shape == (0, 3)
