"""The labels of stored images as one array."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regraft_core.formats.manifests.dataset import DatasetManifest
from regraft_core.formats.records import ImageRecord


def label_array(records: Sequence[ImageRecord], dataset: DatasetManifest) -> NDArray[Any]:
    """Return class indices, int32 [n]; with several labels an image uint8 [n, classes].

    In these, 1 stands for each class that the image has.
    """
    if dataset.labels_per_image == "one":
        return np.array([record.label for record in records], np.int32)
    array = np.zeros((len(records), len(dataset.classes)), np.uint8)
    for row, record in zip(array, records, strict=True):
        row[list(record.labels or ())] = 1
    return array


def label_names(record: ImageRecord, classes: Sequence[str]) -> list[str]:
    """Return the names of an image's class, or of its classes, of which there may be none."""
    labels = (record.label,) if record.labels is None else record.labels
    return [classes[label] for label in labels]


def label_text(record: ImageRecord, classes: Sequence[str]) -> str:
    """Return the names of an image's classes as a text, `none` without any."""
    return ", ".join(label_names(record, classes)) or "none"
