"""Measures a backbone on a sample of the training images: held-out predictions, time and size."""

from __future__ import annotations

import functools
import gc
import io
import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from components.extract_features.engines import constant_call
from regraft_core.backbones.backbone_table import Backbone
from regraft_core.backbones.build import build_backbone
from regraft_core.formats.manifests.dataset import DatasetManifest
from regraft_core.formats.manifests.features import Level
from regraft_core.formats.options.extract_features import FeatureOptions
from regraft_core.formats.records import ImageRecord, read_records, shard_file
from regraft_core.images.batch_decoding import Decode, decode_batches, make_decoder
from regraft_core.runtime.errors import DataError
from regraft_core.runtime.step_reports import ProgressReporter
from regraft_core.training.feature_store import LEVELS, number_groups
from regraft_core.training.heads import all_levels, pooled_levels, pooling_layer
from regraft_core.training.linear_head.head_rows import HeadRows, scored_rows
from regraft_core.training.linear_head.held_out_predictions import held_out_predictions
from regraft_core.training.mixed_precision import (
    accelerate,
    choose_half_precision,
    gpu_capabilities,
)
from regraft_core.training.winograd import winograd

SAMPLE_IMAGES = 1000
"""Training images of a sample; more only if there are more than half as many classes."""
FOLDS = 5
_LEAST_OF_A_CLASS = 2
_SIZES_READ = 200
_SMALLEST_PX, _STEP_PX = 96, 32
_LARGER = 1.5


@dataclass(frozen=True)
class Sample:
    """Training images: the stored records, labels [n], groups of near duplicates [n], classes.

    `scored` are the indices of the images whose class has others.
    """

    records: Sequence[ImageRecord]
    labels: NDArray[np.int32]
    groups: NDArray[np.int64]
    classes: int
    scored: NDArray[np.int64]

    @property
    def folds(self) -> int:
        """Folds of the cross-validation."""
        return min(FOLDS, len(np.unique(self.groups)))


@dataclass(frozen=True)
class Measured:
    """A backbone at an image size: which scored images a head predicts correctly, and its costs.

    `image_ms` are milliseconds per image, the shortest of all batches; `mb` is the size of its
    weights in float32.
    """

    row: Backbone
    weights: str
    image_px: int
    correct: NDArray[np.bool_]
    image_ms: float
    mb: float


def read_sample(dataset: Path, data: DatasetManifest, limit: int = SAMPLE_IMAGES) -> Sample:
    """Return the first images of each class, as many as its fraction of the training images.

    Raises:
        DataError: no class has two images.
    """
    info = data.splits["train"]
    fraction = min(limit / max(info.count, 1), 1.0)
    missing = {
        label: max(math.ceil(info.by_class.get(name, 0) * fraction), _LEAST_OF_A_CLASS)
        for label, name in enumerate(data.classes)
    }
    records: list[ImageRecord] = []
    for shard in info.shards:
        if not any(missing.values()):
            break
        for record in read_records(shard_file(dataset, shard)):
            if missing[record.label]:
                missing[record.label] -= 1
                records.append(record)
    labels = np.array([record.label for record in records], np.int32)
    groups = number_groups(np.array([record.group for record in records], np.int64))
    scored = scored_rows(labels, groups) if records else np.empty(0, np.int64)
    if not len(scored):
        raise DataError(
            "backbone: expected a class with two training images to choose by, found none; name "
            "the backbone and --image-px"
        )
    return Sample(records, labels, groups, len(data.classes), scored)


def sizes_to_compare(row: Backbone, sample: Sample) -> tuple[int, ...]:
    """Return the backbone's default size and, if it accepts others, one near the images' own.

    The latter is the median of their shorter sides, rounded up and at least `_SMALLEST_PX`; for
    images that are not smaller than the default, it is 1.5 times the default.

    Raises:
        InputError: the backbone has no default.
    """
    default = row.side_px(0)
    if row.one_size:
        return (default,)
    sides = [min(Image.open(io.BytesIO(record.encoded)).size)
             for record in sample.records[:_SIZES_READ]]  # fmt: skip
    step = _STEP_PX if _STEP_PX % row.step_px == 0 else row.step_px
    near = _whole_steps(max(statistics.median(sides), _SMALLEST_PX, row.min_px), step)
    return default, near if near < default else _whole_steps(_LARGER * default, step)


def _whole_steps(px: float, step: int) -> int:
    return step * math.ceil(px / step)


def measure(
    row: Backbone, weights: str, image_px: int, sample: Sample, options: FeatureOptions
) -> Measured:
    """Compute the features of the sample and predict each image from those of other folds.

    Raises:
        InputError: the weights are unavailable or do not match.
    """
    model = build_backbone(row, image_px, weights)
    features, image_ms = _features(model, row, sample, options)
    candidates = [_head_rows(values, widths, sample) for values, widths in features]
    predicted = held_out_predictions(
        candidates, sample.classes, sample.scored, sample.folds, options.seed
    )
    correct = predicted == sample.labels[sample.scored]
    mb = 4 * model.count_params() / 1e6
    del model
    gc.collect()  # the graphs of this backbone, before the next one's
    return Measured(row, weights, image_px, correct, image_ms, mb)


def _features(
    model: keras.Model, row: Backbone, sample: Sample, options: FeatureOptions
) -> tuple[list[tuple[NDArray[np.float32], list[int]]], float]:
    """Return features with the widths of their levels, and the milliseconds per image."""
    outputs = {"gap": pooling_layer("gap")(model.output)}
    levels: list[Level] = []
    if options.levels != "last" and "gap" in options.poolings:
        levels = all_levels(model)
        outputs[LEVELS] = pooled_levels(model, levels)
    extractor = keras.Model(model.input, outputs)
    px = int(model.input.shape[1])
    progress = ProgressReporter(f"extract_features: {row.label} at {px} px", len(sample.records))
    found: dict[str, list[NDArray[np.float32]]] = {name: [] for name in outputs}
    batch_s: list[float] = []
    half = choose_half_precision(options.precision, gpu_capabilities())
    with accelerate(model.layers, half), winograd([] if half else model.layers):
        compute = constant_call(extractor, row).get_concrete_function()
        for records, pixels in decode_batches(sample.records, options.batch_size, _decoder(px)):
            if not batch_s:
                compute(pixels)  # the first call takes longer
            start = time.perf_counter()
            arrays = {name: array.numpy() for name, array in compute(pixels).items()}
            batch_s.append((time.perf_counter() - start) / len(records))
            for name, array in arrays.items():
                found[name].append(array.astype(np.float32))
            progress(sum(map(len, found["gap"])))
    features = [(np.concatenate(found["gap"]), [int(model.output.shape[-1])])]
    if levels:
        both, widths = np.concatenate(found[LEVELS]), [level.width for level in levels]
        averages = len(levels) // 2
        features += [(both[:, : sum(widths[:averages])], widths[:averages]), (both, widths)]
    return features, 1000 * min(batch_s)


@functools.lru_cache(maxsize=4)
def _decoder(image_px: int) -> Decode:
    """Return one decoder for all backbones of a size: making its graph takes a second."""
    return make_decoder(image_px)


def _head_rows(values: NDArray[np.float32], widths: list[int], sample: Sample) -> HeadRows:
    mean, variance = values.mean(axis=0), values.var(axis=0)
    return HeadRows([values], sample.labels, sample.groups, mean, variance, widths)
