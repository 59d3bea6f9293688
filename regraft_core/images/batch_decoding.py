"""Batches of stored images, decoded in order by background threads.

`tf.data` is not used, because optimizing the decoders' graph for its iterator takes seconds, often
more than a small dataset needs.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator

import tensorflow as tf

from regraft_core.formats.records import ImageRecord
from regraft_core.images.prefetch import prefetch_map
from regraft_core.images.preprocess import load_images

DECODERS = 2
Decode = Callable[[tf.Tensor], tf.Tensor]
Batch = tuple[list[ImageRecord], tf.Tensor]


def make_decoder(image_px: int) -> Decode:
    """Return one graph from encoded images, string [n], to float32 [n, px, px, 3] in 0..255."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def decode(encoded: tf.Tensor) -> tf.Tensor:
        return load_images(encoded, image_px)

    return decode


def decode_batches(
    records: Iterable[ImageRecord], batch_size: int, decode: Decode
) -> Iterator[Batch]:
    """Yield batches of records with their pixels, a few of them prefetched.

    Raises:
        tf.errors.InvalidArgumentError: an image cannot be decoded.
    """
    remaining = iter(records)

    def decode_batch(batch: list[ImageRecord]) -> Batch:
        return batch, decode(tf.constant([record.encoded for record in batch]))

    batches = iter(lambda: list(itertools.islice(remaining, batch_size)), [])
    return prefetch_map(decode_batch, batches, DECODERS)
