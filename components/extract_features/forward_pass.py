"""Runs images through the frozen backbone: decoded in parallel, two batches at a time."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import tensorflow as tf

from components.extract_features.engines import STREAMS, Arrays, Network
from regraft_core.formats.label_arrays import label_array
from regraft_core.formats.manifests.dataset import DatasetManifest
from regraft_core.formats.options.extract_features import FeatureOptions
from regraft_core.formats.records import ImageRecord
from regraft_core.images.augment import augment
from regraft_core.images.batch_decoding import (
    Batch,
    decode_batch,
    decode_each,
    make_decoder,
    split_evenly,
)
from regraft_core.images.prefetch import prefetch_map
from regraft_core.training.feature_store import GROUPS, LABELS

ShardImages = tuple[int, Iterable[ImageRecord]]
"""The number of a shard's images, and the images."""
Forward = Callable[[Iterable[ShardImages], int], Iterator[Arrays]]
"""From the images of each shard and the number of a view to batches of arrays.

A batch is of one shard, so the results of a shard do not depend on which others a worker has.
"""


def build_forward(
    network: Network, options: FeatureOptions, image_px: int, dataset: DatasetManifest
) -> Forward:
    """Return a function from the images of shards and a view's number to batches of arrays."""
    decode = make_decoder(image_px)
    augmented = _augmentation(options, image_px) if options.augment != "off" else None
    # Without a GPU, threads that only decode take the cores from those that compute.
    decodes_ahead = bool(tf.config.list_logical_devices("GPU"))

    def batches(shards: Iterable[ShardImages], view: int) -> Iterator[Arrays]:
        def arrays_of(batch: Batch) -> Arrays:
            records, pixels = batch
            if augmented and view > 0:
                pixels = augmented(pixels, tf.constant([record.id for record in records]), view)
            groups = np.array([record.group for record in records], np.int64)
            return network(pixels) | {LABELS: label_array(records, dataset), GROUPS: groups}

        # A second batch uses the cores, or the GPU, that the first leaves idle.
        by_shard = (split_evenly(images, count, options.batch_size) for count, images in shards)
        split = itertools.chain.from_iterable(by_shard)
        if decodes_ahead:
            return prefetch_map(arrays_of, decode_each(split, decode), STREAMS)

        def decoded_arrays(records: list[ImageRecord]) -> Arrays:
            return arrays_of(decode_batch(records, decode))

        return prefetch_map(decoded_arrays, split, STREAMS + 1)  # one decodes, the others compute

    return batches


def _augmentation(
    options: FeatureOptions, image_px: int
) -> Callable[[tf.Tensor, tf.Tensor, int], tf.Tensor]:
    """Return one graph from pixels, IDs and a view's number to augmented pixels."""
    strength = options.augment
    assert strength != "auto"

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, image_px, image_px, 3], tf.float32),
            tf.TensorSpec([None], tf.string),
            tf.TensorSpec([], tf.int32),
        ]
    )
    def augmented(pixels: tf.Tensor, ids: tf.Tensor, view: tf.Tensor) -> tf.Tensor:
        seeds = view_seeds(ids, view, options.seed)
        return augment(pixels, seeds, strength, flips=options.flips == "on")

    return augmented


def view_seeds(ids: tf.Tensor, view: tf.Tensor, seed: int) -> tf.Tensor:
    """Return a seed per image, int32 [n, 2], from its ID, the view and the run's seed."""
    by_id = tf.strings.to_hash_bucket_fast(ids, 2**31 - 1)
    return tf.stack(
        [tf.cast(by_id, tf.int32), tf.fill(tf.shape(ids), view * 1_000_003 + seed)], axis=1
    )
