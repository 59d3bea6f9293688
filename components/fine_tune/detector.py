"""The detector of out-of-distribution images of a fine-tuned candidate, whose features are new."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from components.fine_tune.forward import compute_rows, trace_forward
from components.fine_tune.strategies import Parts
from regraft_core.backbones.cuts import cut_points, find_cut
from regraft_core.formats.manifests.dataset import Split
from regraft_core.runtime.step_reports import ProgressReporter
from regraft_core.training.feature_store import CUT, LEVELS, FeatureRows
from regraft_core.training.heads import pooling_layer
from regraft_core.training.image_source import ImageRows, image_source
from regraft_core.training.ood_detector import (
    OodDetector,
    average_maps,
    detector_layers,
    detector_sample,
    fit_ood_detector,
)
from regraft_core.training.training_source import Batch, Source

SPLITS: tuple[Split, ...] = ("train", "validation")


def fit_detector(parts: Parts, strategy: str, batch_size: int, seed: int) -> OodDetector | None:
    """Fit the detector to the features of a sample of the plain images, as `train_head` does.

    With cached activations, only the layers above the cut compute; the others have not changed.
    """
    layers = detector_layers(parts.features.levels)
    below: list[str] = []
    start = parts.backbone.input
    cut = parts.features.cut if strategy == "top" and parts.cached else None
    if cut is not None:
        point = find_cut(parts.backbone, cut)
        start = point.tensor
        index = {one.name: one.index for one in cut_points(parts.backbone)}
        below = [name for name in layers if index[name] <= point.index]
    tensors = [parts.backbone.get_layer(name).output for name in layers if name not in below]
    if not layers:
        layer = pooling_layer(parts.head.head["pooling"])
        tensors = [layer(parts.backbone.output)]
        layers = {layer.name: tensors[0].shape[-1]}
    model = keras.Model(start, tensors)
    stored = sum(layers[name] for name in below)
    sources = [_source(parts, split, cached=cut is not None) for split in SPLITS]
    forward = trace_forward(model, sources[0], average_maps)
    found = []
    for split, source in zip(SPLITS, sources, strict=True):
        sample = detector_sample(source.count, sum(layers.values()), seed)
        progress = ProgressReporter(f"fine_tune: {split} images of the detector", len(sample))
        rows, labels = compute_rows(forward, source, sample, batch_size, progress)
        if stored:
            constant = FeatureRows(parts.folders, split, LEVELS).rows(sample)[:, :stored]
            rows = np.concatenate([constant.astype(np.float32), rows], axis=1)
        found.append((rows, labels))
    (train, labels), (held_out, _) = found
    return fit_ood_detector(layers, train, labels, held_out)


def _source(parts: Parts, split: Split, *, cached: bool) -> Source:
    """Return the plain images of a split, or their activations at the cut."""
    if not cached:
        return image_source(ImageRows(parts.dataset, split), parts.head.preprocessing)
    rows = FeatureRows(parts.folders, split, CUT)

    def fetch(indices: NDArray[np.int64], epoch: int) -> Batch:
        return rows.rows(indices, epoch).astype(np.float32), rows.labels[indices]

    return Source(len(rows), fetch, tf.TensorSpec([None, *rows.row_shape], tf.float32))
