"""The drift reference of an exported model: what it computes for a sample of validation images."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from components.export.signatures import ERROR, Built, Postprocessing
from regraft_core.formats.drift_reference import make_reference
from regraft_core.formats.manifests.dataset import DatasetManifest
from regraft_core.formats.manifests.saved_model import DriftReferenceInfo
from regraft_core.formats.records import ImageRecord, read_split
from regraft_core.runtime.step_reports import ProgressReporter
from regraft_core.training.linear_head.refitted_head import RefittedHead

# Values of the sample's features: 8 MB as float16.
MAX_VALUES = 1 << 22
BATCH = 32
_SEED = 0


def write_reference(
    folder: str | os.PathLike[str],
    built: Built,
    postprocessing: Postprocessing,
    dataset: str | os.PathLike[str],
    images: int,
    refitted: RefittedHead | None,
) -> DriftReferenceInfo | None:
    """Write the reference of a sample of the validation split into the SavedModel's folder.

    Args:
        folder: the SavedModel.
        built: its signature `features`.
        postprocessing: the OOD rule, if there is one.
        dataset: the dataset's folder.
        images: number of images at most; features of many values allow fewer.
        refitted: what the head predicted before the validation images were fitted. Its predictions
            are those of images that it has not seen, as requests are.

    Returns:
        None if no images are wanted, or none is valid.
    """
    manifest = DatasetManifest.read(dataset)
    split = manifest.splits["validation"]
    order = np.random.default_rng(_SEED).permutation(split.count)
    wanted = np.sort(order[: min(images, max(MAX_VALUES // built.width, 1))])
    progress = ProgressReporter("export: images of the drift reference", len(wanted))
    rows: dict[str, list[NDArray[Any]]] = {"features": [], "predicted": [], "familiarity": []}
    for indices, records in _batches(dataset, wanted):
        outputs = built.features(tf.constant([record.encoded for record in records]))
        found = {name: value.numpy() for name, value in outputs.items()}
        logits = found["probabilities"] if refitted is None else refitted.validation_logits[indices]
        valid = (found[ERROR] == b"") & np.isfinite(found["features"]).all(axis=1)
        rows["features"].append(found["features"][valid])
        rows["predicted"].append(logits.argmax(axis=1)[valid])
        rows["familiarity"].append(found.get("familiarity", np.full(len(records), np.nan))[valid])
        progress.advance(len(records))
    arrays = {name: np.concatenate(parts) for name, parts in rows.items() if parts}
    if not arrays or not len(arrays["features"]):
        return None
    reference = make_reference(
        **arrays,
        threshold=postprocessing.ood.threshold if postprocessing.ood else float("nan"),
        class_counts=np.array([split.by_class.get(name, 0) for name in manifest.classes]),
    )
    size = reference.write(folder)
    return DriftReferenceInfo(images=len(reference.predicted), width=built.width, bytes=size)


def _batches(
    dataset: str | os.PathLike[str], wanted: NDArray[np.int64]
) -> Iterator[tuple[list[int], list[ImageRecord]]]:
    """Yield the indices and the records of the wanted validation images, in batches."""
    chosen = set(wanted.tolist())
    indices: list[int] = []
    records: list[ImageRecord] = []
    for index, record in enumerate(read_split(dataset, "validation")):
        if index in chosen:
            indices.append(index)
            records.append(record)
        if len(records) == BATCH:
            yield indices, records
            indices, records = [], []
    if records:
        yield indices, records
