"""Warm-up requests: real images that a server predicts before it receives traffic."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from components.export.signatures import (
    CLASSIFY,
    EXAMPLE_KEY,
    FEATURES,
    IMAGES,
    IMAGES_FEATURES,
    SERVING,
)
from regraft_core.formats.fingerprint import WARMUP_FILE
from regraft_core.images.preprocess import load_image

# Maximum total size of the distinct images of one request: a record of photographs stays small.
_REQUEST_BYTES = 4_000_000


def write_warmup(
    folder: str | os.PathLike[str], images: Iterable[bytes], image_px: int, warmup_batch_size: int
) -> int:
    """Write warm-up requests for every signature, with 1 and with `warmup_batch_size` images.

    The signature `images_features` has only the request with 1.

    Args:
        folder: the SavedModel.
        images: encoded images; as many as needed are used, and repeated if there are too few.
        image_px: side of the model's input.
        warmup_batch_size: images in the larger request.

    Returns:
        The number of requests.
    """
    path = Path(folder) / WARMUP_FILE
    path.parent.mkdir(exist_ok=True)
    chosen = list(_affordable(islice(images, warmup_batch_size)))
    sizes = sorted({1, warmup_batch_size})
    count = 0
    with tf.io.TFRecordWriter(str(path)) as writer:
        for size in sizes:
            batch = list(islice(cycle(chosen), size))
            for signature, alias, tensor in _requests(batch, image_px):
                log = prediction_log_pb2.PredictionLog()
                request = log.predict_log.request
                request.model_spec.signature_name = signature
                request.inputs[alias].CopyFrom(tensor)
                writer.write(log.SerializeToString())
                count += 1
    return count


def _affordable(images: Iterable[bytes]) -> Iterator[bytes]:
    spent = 0
    for index, image in enumerate(images):
        spent += len(image)
        if index and spent > _REQUEST_BYTES:
            return
        yield image


def _requests(batch: Sequence[bytes], image_px: int) -> Iterator[tuple[str, str, object]]:
    strings = tf.make_tensor_proto(list(batch), tf.string)
    yield SERVING, "image_bytes", strings
    yield FEATURES, "image_bytes", strings
    yield CLASSIFY, "inputs", tf.make_tensor_proto([example_of(one) for one in batch], tf.string)
    pixels = _pixels_proto(batch[0], image_px, len(batch))
    yield IMAGES, "images", pixels
    if len(batch) == 1:  # enough to prepare it: only requests that are logged run it
        yield IMAGES_FEATURES, "images", pixels


def example_of(encoded: bytes) -> bytes:
    """Return the serialized `tf.train.Example` of an encoded image."""
    example = tf.train.Example()
    example.features.feature[EXAMPLE_KEY].bytes_list.value.append(encoded)
    data: bytes = example.SerializeToString()
    return data


def _pixels_proto(encoded: bytes, image_px: int, size: int) -> object:
    """Return a batch of pixels whose first image is real.

    The last value of a tensor proto is repeated for all that follow, which keeps the record small.
    """
    pixels = load_image(tf.constant(encoded), image_px).numpy().astype(np.float32)
    proto = tf.make_tensor_proto(0.0, tf.float32, [size, *pixels.shape])
    del proto.float_val[:]
    proto.float_val.extend(pixels.ravel().tolist())
    return proto
