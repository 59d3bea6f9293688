"""Running a candidate over stored images, through the same preprocessing as serving."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from regraft_core.formats.manifests import DatasetManifest, Preprocessing, Split
from regraft_core.formats.records import ImageRecord, read_split
from regraft_core.images.batch_decoding import decode_batches, make_decoder
from regraft_core.images.preprocess import load_image, scale
from regraft_core.runtime.step import Clock

WARM_UP = 2

Graph = Callable[[tf.Tensor], tf.Tensor]


@dataclass(frozen=True)
class Runner:
    """A model in two graphs, as building them takes seconds.

    `load` is from encoded images, string [n], to pixels float32 [n, px, px, 3] in 0..255;
    `forward` is from there to logits float32 [n, classes].
    """

    load: Graph
    forward: Graph
    image_px: int


@dataclass(frozen=True)
class Predictions:
    """What a model said of the n images of a split, in manifest order.

    `logits` float32 [n, classes], `true_labels` int32 [n]; ids and paths as stored.
    """

    logits: NDArray[np.float32]
    true_labels: NDArray[np.int32]
    ids: tuple[str, ...]
    paths: tuple[str, ...]


def runner_of(model: keras.Model, preprocessing: Preprocessing) -> Runner:
    """Return the graphs of a model that takes the backbone's input."""
    px = preprocessing.image_px

    @tf.function(input_signature=[tf.TensorSpec([None, px, px, 3], tf.float32)])
    def forward(pixels: tf.Tensor) -> tf.Tensor:
        return tf.cast(model(scale(pixels, preprocessing.scaling), training=False), tf.float32)

    return Runner(make_decoder(px), forward, px)


def predict(
    runner: Runner, dataset: str | os.PathLike[str], splits: Sequence[Split], batch_size: int
) -> list[Predictions]:
    """Run a model over some splits in one pass; decoding goes on while the model computes."""
    manifest = DatasetManifest.read(dataset)
    logits = [np.empty((0, len(manifest.classes)), np.float32)]
    seen: list[ImageRecord] = []
    stored = itertools.chain.from_iterable(read_split(dataset, split) for split in splits)
    for records, pixels in decode_batches(stored, batch_size, runner.load):
        logits.append(runner.forward(pixels).numpy())
        # The stored bytes are not needed any more, and there may be many of them.
        seen += [record._replace(encoded=b"") for record in records]
    rows = np.concatenate(logits)
    ends = np.cumsum([0, *(manifest.splits[split].count for split in splits)]).tolist()
    return [
        Predictions(
            logits=rows[start:end],
            true_labels=np.array([record.label for record in seen[start:end]], np.int32),
            ids=tuple(record.id for record in seen[start:end]),
            paths=tuple(readable(record.path) for record in seen[start:end]),
        )
        for start, end in itertools.pairwise(ends)
    ]


def readable(path: str) -> str:
    """Return a stored path as text that any file can hold: bytes that are no UTF-8 replaced."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def predict_encoded(
    runner: Runner, encoded: Sequence[bytes], batch_size: int
) -> NDArray[np.float32]:
    """Return the logits [k, classes] of encoded images; those that do not decode are left out."""
    loaded = (
        tf.data.Dataset.from_tensor_slices(list(encoded))
        .map(lambda one: load_image(one, runner.image_px), tf.data.AUTOTUNE)
        .ignore_errors()
        .batch(batch_size)
        .prefetch(tf.data.AUTOTUNE)
    )
    logits = [runner.forward(pixels).numpy() for pixels in loaded]
    return np.concatenate(logits) if logits else np.empty((0, 0), np.float32)


def latency_ms(runner: Runner, encoded: Sequence[bytes]) -> float:
    """Return the median time from one image's bytes to its logits, in milliseconds.

    The first two images warm the graphs up and do not count; NaN without any further one.
    """
    times = []
    for one in encoded:
        clock = Clock()
        runner.forward(runner.load(tf.constant([one]))).numpy()
        times.append(clock.seconds)
    return float(np.median(times[WARM_UP:]) * 1000) if len(times) > WARM_UP else float("nan")
