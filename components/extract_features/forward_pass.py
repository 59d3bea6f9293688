"""Runs images through the frozen backbone: prefetched, two batches at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from regraft_core.backbones.backbone_table import Backbone
from regraft_core.formats.options import FeatureOptions
from regraft_core.formats.records import ImageRecord
from regraft_core.images.augment import augment
from regraft_core.images.batch_decoding import Batch, decode_batches, make_decoder
from regraft_core.images.prefetch import prefetch_map
from regraft_core.images.preprocess import scale
from regraft_core.training.feature_store import GROUPS, LABELS

Arrays = dict[str, NDArray[Any]]
# (stored images, number of the view) -> batches of arrays
Forward = Callable[[Iterator[ImageRecord], int], Iterator[Arrays]]
# Batches computed at the same time.
STREAMS = 2
# Weights up to this size become constants of the graph. VGG16 (59 MB) gains nothing from it, and
# its graph takes longer to build.
CONSTANT_BYTES = 1 << 25


def build_forward(
    extractor: keras.Model, backbone: Backbone, options: FeatureOptions, image_px: int
) -> Forward:
    """Return a function from stored images and a view's number to batches of arrays."""
    call, strength = _with_constants(extractor), options.augment
    assert strength != "auto"

    # One signature, because a smaller last batch would trace a large backbone again.
    @tf.function(
        input_signature=[
            tf.TensorSpec([None, *extractor.input.shape[1:]], tf.float32),
            tf.TensorSpec([None], tf.string),
            tf.TensorSpec([], tf.int32),
        ]
    )
    def run(pixels: tf.Tensor, ids: tf.Tensor, view: tf.Tensor) -> dict[str, tf.Tensor]:
        if strength != "off":
            seeds = view_seeds(ids, view, options.seed)
            pixels = tf.cond(
                view > 0,
                lambda: augment(pixels, seeds, strength, flips=options.flips == "on"),
                lambda: pixels,
            )
        return call(scale(pixels, backbone.scaling))

    decode, compute = make_decoder(image_px), run.get_concrete_function()

    def batches(images: Iterator[ImageRecord], view: int) -> Iterator[Arrays]:
        def arrays_of(batch: Batch) -> Arrays:
            records, pixels = batch
            ids = tf.constant([record.id for record in records])
            arrays = compute(pixels, ids, tf.constant(view))
            labels = np.array([record.label for record in records], np.int32)
            groups = np.array([record.group for record in records], np.int64)
            computed = {name: array.numpy() for name, array in arrays.items()}
            return computed | {LABELS: labels, GROUPS: groups}

        # A second batch uses the cores that the first leaves idle.
        return prefetch_map(arrays_of, decode_batches(images, options.batch_size, decode), STREAMS)

    return batches


def constant_call(extractor: keras.Model, backbone: Backbone) -> Any:
    """Return a graph from pixels, float32 `[n, h, w, 3]` in 0..255, to the arrays."""
    call = _with_constants(extractor)
    return tf.function(
        lambda pixels: call(scale(pixels, backbone.scaling)),
        input_signature=[tf.TensorSpec([None, *extractor.input.shape[1:]], tf.float32)],
        autograph=False,
    )


def _with_constants(extractor: keras.Model) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    """Return the call of a model, with its weights as constants if they are small enough.

    TensorFlow can then fold operations and convert filters to the layout of the processor once
    instead of for every batch.
    """
    if 4 * extractor.count_params() > CONSTANT_BYTES:
        return lambda inputs: extractor(inputs, training=False)
    trainable, other = (
        [variable.numpy() for variable in variables]
        for variables in (extractor.trainable_variables, extractor.non_trainable_variables)
    )
    return lambda inputs: extractor.stateless_call(trainable, other, inputs, training=False)[0]


def view_seeds(ids: tf.Tensor, view: tf.Tensor, seed: int) -> tf.Tensor:
    """Return a seed per image, int32 [n, 2], from its ID, the view and the run's seed."""
    by_id = tf.strings.to_hash_bucket_fast(ids, 2**31 - 1)
    return tf.stack(
        [tf.cast(by_id, tf.int32), tf.fill(tf.shape(ids), view * 1_000_003 + seed)], axis=1
    )
