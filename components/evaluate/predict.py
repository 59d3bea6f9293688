"""Predictions of a candidate for stored images, with the same preprocessing as serving."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from regraft_core.formats.label_arrays import label_array
from regraft_core.formats.manifests.dataset import DatasetManifest, Split
from regraft_core.formats.manifests.model import Preprocessing
from regraft_core.formats.records import ImageRecord, read_split
from regraft_core.images.batch_decoding import decode_batches, make_decoder
from regraft_core.images.preprocess import load_image, scale
from regraft_core.runtime.step_reports import Clock, ProgressReporter
from regraft_core.training.ood_detector import OodDetector

WARM_UP = 2

Graph = Callable[[tf.Tensor], tf.Tensor]


@dataclass(frozen=True)
class Runner:
    """A model as two graphs, which are built once because building takes seconds.

    `load` is from encoded images, string [n], to pixels float32 [n, px, px, 3] in 0..255;
    `forward` is from pixels to logits float32 [n, classes] and OOD scores float32 [n], which are
    NaN without a detector.
    """

    load: Graph
    forward: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
    image_px: int


@dataclass(frozen=True)
class Predictions:
    """Predictions for the n images of a split, in manifest order.

    `logits` float32 [n, classes], `ood_scores` float32 [n], `true_labels` as of `label_array`; IDs
    and paths as stored, and so are the values of the slices.
    """

    logits: NDArray[np.float32]
    ood_scores: NDArray[np.float32]
    true_labels: NDArray[np.integer]
    ids: tuple[str, ...]
    paths: tuple[str, ...]
    slices: tuple[tuple[str, ...], ...]


def build_runner(
    model: keras.Model, preprocessing: Preprocessing, detector: OodDetector | None = None
) -> Runner:
    """Return the graphs of a model from the backbone's input to logits and OOD scores."""
    px, scaling = preprocessing.image_px, preprocessing.scaling
    # A model of a list of one output returns no list.
    read = detector.inputs(model) if detector else [model.output]
    outputs = keras.Model(model.input, [model.output, *read])

    @tf.function(input_signature=[tf.TensorSpec([None, px, px, 3], tf.float32)])
    def forward(pixels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        logits, *found = outputs(scale(pixels, scaling), training=False)
        unknown = tf.fill([tf.shape(logits)[0]], np.float32(np.nan))
        return tf.cast(logits, tf.float32), detector.scores(found) if detector else unknown

    return Runner(make_decoder(px), forward, px)


def predict(
    runner: Runner, dataset: str | os.PathLike[str], splits: Sequence[Split], batch_size: int
) -> list[Predictions]:
    """Run a model over several splits; images are decoded while the model computes."""
    manifest = DatasetManifest.read(dataset)
    logits = [np.empty((0, len(manifest.classes)), np.float32)]
    scores = [np.empty(0, np.float32)]
    done: list[ImageRecord] = []
    counts = [manifest.splits[split].count for split in splits]
    progress = ProgressReporter(f"evaluate: images of {' and '.join(splits)}", sum(counts))
    images = itertools.chain.from_iterable(read_split(dataset, split) for split in splits)
    for records, pixels in decode_batches(images, batch_size, runner.load):
        outputs = runner.forward(pixels)
        logits.append(outputs[0].numpy())
        scores.append(outputs[1].numpy())
        # The stored bytes are no longer needed and may be large.
        done += [record._replace(encoded=b"") for record in records]
        progress(len(done))
    rows, ood_scores = np.concatenate(logits), np.concatenate(scores)
    ends = np.cumsum([0, *counts]).tolist()
    return [
        Predictions(
            logits=rows[start:end],
            ood_scores=ood_scores[start:end],
            true_labels=label_array(done[start:end], manifest),
            ids=tuple(record.id for record in done[start:end]),
            paths=tuple(printable_path(record.path) for record in done[start:end]),
            slices=tuple(record.slices for record in done[start:end]),
        )
        for start, end in itertools.pairwise(ends)
    ]


def printable_path(path: str) -> str:
    """Return a stored path as valid text: bytes that are not UTF-8 are replaced."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def predict_encoded(
    runner: Runner, encoded: Sequence[bytes], batch_size: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return logits [k, classes] and OOD scores [k] of encoded images.

    Images that cannot be decoded are skipped; without any other, both are empty.
    """
    if not encoded:
        return np.empty((0, 0), np.float32), np.empty(0, np.float32)
    batches = (
        tf.data.Dataset.from_tensor_slices(list(encoded))
        .map(lambda image: load_image(image, runner.image_px), tf.data.AUTOTUNE)
        .ignore_errors()
        .batch(batch_size)
        .prefetch(tf.data.AUTOTUNE)
    )
    progress, found = ProgressReporter("evaluate: OOD images", len(encoded)), []
    for pixels in batches:
        found.append([output.numpy() for output in runner.forward(pixels)])
        progress.advance(len(found[-1][0]))
    if not found:
        return np.empty((0, 0), np.float32), np.empty(0, np.float32)
    logits, scores = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return logits, scores


def measure_latency_ms(runner: Runner, encoded: Sequence[bytes]) -> float:
    """Return the median time from an image's bytes to its logits, in milliseconds.

    The first two images warm up the graphs and do not count; NaN without further ones.
    """
    times = []
    for image in encoded:
        clock = Clock()
        runner.forward(runner.load(tf.constant([image])))[0].numpy()
        times.append(clock.seconds)
    return float(np.median(times[WARM_UP:]) * 1000) if len(times) > WARM_UP else float("nan")
