"""Running a candidate over stored pictures, through the same preprocessing as serving."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from components.core.artifacts import DatasetManifest, Preprocessing, Split
from components.core.pictures import pictures_of
from components.core.preprocess import load_picture, load_pictures, scale
from components.core.step import Clock

WARM_UP = 2

Graph = Callable[[tf.Tensor], tf.Tensor]


@dataclass(frozen=True)
class Runner:
    """A model in two graphs, as building them takes seconds.

    `load` is from encoded pictures, string [n], to pixels float32 [n, px, px, 3] in 0..255;
    `forward` is from there to logits float32 [n, classes].
    """

    load: Graph
    forward: Graph
    image_px: int


@dataclass(frozen=True)
class Predictions:
    """What a model said of the n pictures of a split, in manifest order.

    `logits` float32 [n, classes], `truths` int32 [n]; ids and paths as stored.
    """

    logits: NDArray[np.float32]
    truths: NDArray[np.int32]
    ids: tuple[str, ...]
    paths: tuple[str, ...]


def runner_of(model: keras.Model, preprocessing: Preprocessing) -> Runner:
    """Return the graphs of a model that takes the backbone's input."""
    px = preprocessing.image_px

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def load(encoded: tf.Tensor) -> tf.Tensor:
        return load_pictures(encoded, px)

    @tf.function(input_signature=[tf.TensorSpec([None, px, px, 3], tf.float32)])
    def forward(pixels: tf.Tensor) -> tf.Tensor:
        return tf.cast(model(scale(pixels, preprocessing.scaling), training=False), tf.float32)

    return Runner(load, forward, px)


def predict(
    runner: Runner, dataset: str | os.PathLike[str], splits: Sequence[Split], batch_size: int
) -> list[Predictions]:
    """Run a model over some splits in one pass; decoding goes on while the model computes."""
    manifest = DatasetManifest.read(dataset)
    infos = [manifest.splits[split] for split in splits]
    files = [Path(dataset) / shard.file for info in infos for shard in info.shards]
    logits = [np.empty((0, len(manifest.classes)), np.float32)]
    truths = [np.empty(0, np.int32)]
    ids: list[bytes] = []
    paths: list[bytes] = []
    for batch in pictures_of(files, runner.image_px, batch_size) if files else ():
        logits.append(runner.forward(batch["pixels"]).numpy())
        truths.append(batch["label"].numpy())
        ids += batch["id"].numpy().tolist()
        paths += batch["path"].numpy().tolist()
    all_logits, all_truths = np.concatenate(logits), np.concatenate(truths)
    ends = np.cumsum([0, *(info.count for info in infos)]).tolist()
    return [
        Predictions(
            logits=all_logits[start:end],
            truths=all_truths[start:end],
            ids=tuple(name.decode() for name in ids[start:end]),
            paths=tuple(path.decode("utf-8", "replace") for path in paths[start:end]),
        )
        for start, end in itertools.pairwise(ends)
    ]


def predict_encoded(
    runner: Runner, encoded: Sequence[bytes], batch_size: int
) -> NDArray[np.float32]:
    """Return the logits [k, classes] of encoded pictures; those that do not decode are left out."""
    loaded = (
        tf.data.Dataset.from_tensor_slices(list(encoded))
        .map(lambda one: load_picture(one, runner.image_px), tf.data.AUTOTUNE)
        .ignore_errors()
        .batch(batch_size)
        .prefetch(tf.data.AUTOTUNE)
    )
    logits = [runner.forward(pixels).numpy() for pixels in loaded]
    return np.concatenate(logits) if logits else np.empty((0, 0), np.float32)


def latency_ms(runner: Runner, encoded: Sequence[bytes]) -> float:
    """Return the median time from one picture's bytes to its logits, in milliseconds.

    The first two pictures warm the graphs up and do not count; NaN without any further one.
    """
    times = []
    for one in encoded:
        clock = Clock()
        runner.forward(runner.load(tf.constant([one]))).numpy()
        times.append(clock.seconds)
    return float(np.median(times[WARM_UP:]) * 1000) if len(times) > WARM_UP else float("nan")
