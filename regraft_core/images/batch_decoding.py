"""Batches of stored images, decoded in order by background threads.

`tf.data` is not used, because optimizing the decoders' graph for its iterator takes seconds, often
more than a small dataset needs.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence

import tensorflow as tf

from regraft_core.formats.records import ImageRecord
from regraft_core.images.prefetch import prefetch_map
from regraft_core.images.preprocess import load_images
from regraft_core.runtime.errors import DataError

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
        DataError: an image cannot be decoded; the message has its path.
    """
    return decode_each(split_batches(records, batch_size), decode)


def split_batches(records: Iterable[ImageRecord], batch_size: int) -> Iterator[list[ImageRecord]]:
    """Yield the records in batches; the last may be smaller."""
    remaining = iter(records)
    return iter(lambda: list(itertools.islice(remaining, batch_size)), [])


def split_evenly(
    records: Iterable[ImageRecord], count: int, batch_size: int
) -> Iterator[list[ImageRecord]]:
    """Yield `count` records in the fewest batches that are allowed, of nearly the same size.

    A small rest would occupy a thread as long as a whole batch does. Records beyond `count` follow.
    """
    remaining = iter(records)
    batches = -(-count // batch_size)
    for number in range(batches):
        size = count // batches + (number < count % batches)
        yield from split_batches(itertools.islice(remaining, size), size)
    yield from split_batches(remaining, batch_size)


def decode_each(batches: Iterable[list[ImageRecord]], decode: Decode) -> Iterator[Batch]:
    """Yield given batches with their pixels, as `decode_batches` does."""
    return prefetch_map(lambda batch: decode_batch(batch, decode), batches, DECODERS)


def decode_batch(records: list[ImageRecord], decode: Decode) -> Batch:
    """Return records with their pixels.

    Raises:
        DataError: an image cannot be decoded; the message has its path.
    """
    with naming_undecodable(records, decode):
        return records, decode(tf.constant([record.encoded for record in records]))


@contextlib.contextmanager
def naming_undecodable(records: Sequence[ImageRecord], decode: Decode) -> Iterator[None]:
    """Raise the error of a batch as one of the image that cannot be decoded.

    Raises:
        DataError: an image cannot be decoded; the message has its path.
    """
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        for record in records:
            try:
                decode(tf.constant([record.encoded]))
            except tf.errors.InvalidArgumentError as own:
                raise DataError(
                    f"{record.path}: the model cannot decode this image ({_reason(own)}); "
                    "exclude it and run ingest again"
                ) from error
        raise


def _reason(error: tf.errors.InvalidArgumentError) -> str:
    """Return what was expected of an image, or the decoder's message, in a few words."""
    text = " ".join(str(error.message).split())
    found = re.search(r"image \d+: (expected [^\]\[]+)", text)
    return found[1] if found else text.split("[[")[0].rpartition("}}")[2].strip()[:100] or "damaged"
