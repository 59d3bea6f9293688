"""Running a candidate over stored pictures, through the same preprocessing as serving."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from components.core.artifacts import Preprocessing, Split
from components.core.pictures import pictures
from components.core.preprocess import load_picture, scale
from components.core.step import Clock

Forward = Callable[[tf.Tensor], tf.Tensor]


@dataclass(frozen=True)
class Predictions:
    """What a model said of the n pictures of a split, in manifest order.

    `logits` float32 [n, classes], `truths` int32 [n]; ids and paths as stored.
    """

    logits: NDArray[np.float32]
    truths: NDArray[np.int32]
    ids: tuple[str, ...]
    paths: tuple[str, ...]
    seconds: float


def forward_of(model: keras.Model, preprocessing: Preprocessing) -> Forward:
    """Return the graph from pixels float32 [n, px, px, 3] in 0..255 to logits [n, classes]."""
    px = preprocessing.image_px

    @tf.function(input_signature=[tf.TensorSpec([None, px, px, 3], tf.float32)])
    def forward(pixels: tf.Tensor) -> tf.Tensor:
        return tf.cast(model(scale(pixels, preprocessing.scaling), training=False), tf.float32)

    return forward


def predict(
    forward: Forward, dataset: str | os.PathLike[str], split: Split, image_px: int, batch_size: int
) -> Predictions:
    """Run `forward` over a split; decoding goes on while the model computes."""
    clock = Clock()
    logits, truths = [np.empty((0, 0), np.float32)], [np.empty(0, np.int32)]
    ids: list[bytes] = []
    paths: list[bytes] = []
    for batch in pictures(dataset, split, image_px, batch_size):
        logits.append(forward(batch["pixels"]).numpy())
        truths.append(batch["label"].numpy())
        ids += batch["id"].numpy().tolist()
        paths += batch["path"].numpy().tolist()
    return Predictions(
        logits=np.concatenate(logits[1:]) if ids else logits[0],
        truths=np.concatenate(truths),
        ids=tuple(name.decode() for name in ids),
        paths=tuple(path.decode("utf-8", "replace") for path in paths),
        seconds=clock.seconds,
    )


def predict_encoded(
    forward: Forward, encoded: Sequence[bytes], image_px: int, batch_size: int
) -> NDArray[np.float32]:
    """Return the logits [k, classes] of encoded pictures; those that do not decode are left out."""
    loaded = (
        tf.data.Dataset.from_tensor_slices(list(encoded))
        .map(lambda one: load_picture(one, image_px), tf.data.AUTOTUNE)
        .ignore_errors()
        .batch(batch_size)
        .prefetch(tf.data.AUTOTUNE)
    )
    logits = [forward(pixels).numpy() for pixels in loaded]
    return np.concatenate(logits) if logits else np.empty((0, 0), np.float32)


def latency_ms(forward: Forward, encoded: Iterable[bytes], image_px: int) -> float:
    """Return the median time from one picture's bytes to its logits, in milliseconds.

    The first two pictures warm the graph up and do not count; NaN without any further one.
    """
    times = []
    for one in encoded:
        clock = Clock()
        forward(load_picture(tf.constant(one), image_px)[None]).numpy()
        times.append(clock.seconds)
    return float(np.median(times[2:]) * 1000) if len(times) > 2 else float("nan")
