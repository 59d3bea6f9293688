"""Models in 8-bit integers, released only if a paired test shows that they are hardly worse.

Weights and activations are quantized after the training; the ranges of the activations are those of
training images. Both models predict the same test images, and the interval of the difference of
their accuracies decides.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from regraft_core.formats.label_arrays import label_array
from regraft_core.formats.manifests.dataset import DatasetManifest
from regraft_core.formats.records import ImageRecord, spaced_records
from regraft_core.formats.served_thresholds import ServedThresholds
from regraft_core.images.preprocess import load_images
from regraft_core.runtime.step_reports import ProgressReporter, log_progress
from regraft_core.training.intervals import difference_interval

CALIBRATION_IMAGES, TEST_IMAGES, BATCH = 200, 2_000, 32


@dataclass(frozen=True)
class Int8Test:
    """Both models on the same test images.

    With several labels an image, an image is correct if all of its labels are. `difference` is the
    accuracy in int8 minus that of the model, with its 95% interval; speeds are those of one batch
    after the other on this machine, without decoding.
    """

    images: int
    accuracy: float
    model_accuracy: float
    difference: float
    difference_low: float
    difference_high: float
    margin: float
    mb: float
    images_per_s: float
    model_images_per_s: float

    @property
    def passed(self) -> bool:
        """Whether a loss of more than the margin is excluded."""
        return self.difference_low >= -self.margin

    def __str__(self) -> str:
        return (
            f"accuracy {self.accuracy:.4f} instead of {self.model_accuracy:.4f} on {self.images} "
            f"test images, difference {self.difference:+.4f} ({self.difference_low:+.4f} to "
            f"{self.difference_high:+.4f}), allowed -{self.margin:g}; {self.mb:.1f} MB, "
            f"{self.images_per_s:.0f} images/s (the model: {self.model_images_per_s:.0f})"
        )


def calibration_records(dataset: str | os.PathLike[str]) -> list[ImageRecord]:
    """Return training images, evenly spaced over the split.

    Raises:
        DataError: the split is empty.
    """
    return spaced_records(dataset, "train", CALIBRATION_IMAGES)


def load_record(record: ImageRecord, image_px: int) -> NDArray[np.float32]:
    """Return the pixels of an image, float32 [1, px, px, 3] in 0..255."""
    return np.asarray(load_images(tf.constant([record.encoded]), image_px))


def check_int8(
    name: str,
    files: list[Path],
    quantized: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    model: keras.Model,
    dataset: str | os.PathLike[str],
    margin: float,
    thresholds: ServedThresholds,
) -> Int8Test:
    """Test a model in int8; its files are removed if it may be worse by the margin.

    Args:
        name: of its format.
        files: those that were written.
        quantized: the model in int8, from pixels to probabilities as `model`.
        model: from pixels float32 [n, px, px, 3] in 0..255 to probabilities float32 [n, classes].
        dataset: the dataset, whose test images decide.
        margin: the largest loss of accuracy that is allowed.
        thresholds: those of the labels, with several labels an image.

    Raises:
        DataError: the split is empty.
    """
    mb = sum(file.stat().st_size for file in files) / 1e6
    records = spaced_records(dataset, "test", TEST_IMAGES)
    labels = label_array(records, DatasetManifest.read(dataset))
    found = _compare(name, quantized, model, records, labels, margin, thresholds, mb)
    if found.passed:
        log_progress(f"export: {name} has {found}")
    else:
        log_progress(f"export: {name} is left out, because it has {found}")
        for file in files:
            file.unlink()
    return found


def is_correct(
    probabilities: NDArray[np.floating], labels: NDArray[np.integer], thresholds: ServedThresholds
) -> NDArray[np.bool_]:
    """Return which images are predicted correctly, bool [n].

    Args:
        probabilities: float [n, classes].
        labels: as of `label_array`.
        thresholds: those of the labels, with several labels an image.
    """
    selected = thresholds.selects(probabilities)
    if selected is None:
        return np.asarray(probabilities.argmax(axis=1) == labels)
    return np.asarray((selected == labels).all(axis=1))


def _compare(
    name: str,
    quantized: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    model: keras.Model,
    records: list[ImageRecord],
    labels: NDArray[np.integer],
    margin: float,
    thresholds: ServedThresholds,
    mb: float,
) -> Int8Test:
    image_px = int(model.input.shape[1])
    compute = tf.function(
        lambda pixels: model(pixels, training=False),
        input_signature=[tf.TensorSpec([None, image_px, image_px, 3], tf.float32)],
        autograph=False,
    )
    correct: list[NDArray[np.bool_]] = []
    seconds: list[tuple[float, float]] = []
    progress = ProgressReporter(f"export {name} test images", len(records))
    for first in range(0, len(records), BATCH):
        batch = records[first : first + BATCH]
        pixels = load_images(tf.constant([record.encoded for record in batch]), image_px)
        start = time.perf_counter()
        exact = compute(pixels).numpy()
        between = time.perf_counter()
        rounded = quantized(pixels.numpy())
        seconds.append((time.perf_counter() - between, between - start))
        known = labels[first : first + len(batch)]
        correct.append(np.stack([is_correct(one, known, thresholds) for one in (rounded, exact)]))
        progress(first + len(batch))
    ours, theirs = np.concatenate(correct, axis=1)
    wins, losses = int(np.sum(ours & ~theirs)), int(np.sum(~ours & theirs))
    low, high = difference_interval(wins, losses, len(records))
    # The first batch traces the graph and allocates the memory.
    speeds = min(BATCH, len(records)) / np.median(np.array(seconds[1:] or seconds), axis=0)
    return Int8Test(
        len(records), float(ours.mean()), float(theirs.mean()), (wins - losses) / len(records),
        low, high, margin, mb, float(speeds[0]), float(speeds[1]),
    )  # fmt: skip
