"""Images of a dataset as a training source: read by index as stored bytes."""

from __future__ import annotations

import mmap
import os
import zlib

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from regraft_core.formats.label_arrays import label_array
from regraft_core.formats.manifests.dataset import DatasetManifest, Split
from regraft_core.formats.manifests.model import Preprocessing
from regraft_core.formats.options.extract_features import Strength
from regraft_core.formats.records import ImageRecord, parse_record, record_offsets, shard_file
from regraft_core.images.augment import augment
from regraft_core.images.preprocess import load_images, scale
from regraft_core.training.training_source import Batch, Source


class ImageRows:
    """The stored images of a split, read by index.

    `labels` is int32 [n], or with several labels an image uint8 [n, classes].
    `id_hashes` int32 [n] seed the augmentation of each image independently of the order.
    """

    def __init__(self, dataset: str | os.PathLike[str], split: Split) -> None:
        manifest = DatasetManifest.read(dataset)
        shards = manifest.splits[split].shards
        self._locations: list[tuple[mmap.mmap, int, int]] = []
        for shard in shards:
            path = shard_file(dataset, shard)
            with open(path, "rb") as file:
                memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self._locations += [(memory, *location) for location in record_offsets(path)]
        records = [self._record(index) for index in range(len(self._locations))]
        self.labels = label_array(records, manifest)
        hashes = [zlib.crc32(record.id.encode()) & 0x7FFFFFFF for record in records]
        self.id_hashes = np.array(hashes, np.int32)

    def __len__(self) -> int:
        return len(self._locations)

    def encoded(self, indices: NDArray[np.int64]) -> list[bytes]:
        """Return the stored bytes of the images at `indices`."""
        return [self._record(int(index)).encoded for index in indices]

    def _record(self, index: int) -> ImageRecord:
        memory, offset, length = self._locations[index]
        return parse_record(memory[offset : offset + length])


def image_source(
    rows: ImageRows, preprocessing: Preprocessing, strength: Strength = "off", seed: int = 0,
    *, flips: bool = False,
) -> Source:  # fmt: skip
    """Return stored images as a training source: the backbone's input [n, px, px, 3].

    Unless `strength` is `off`, each epoch augments each image, depending only on `seed`, the epoch
    and the image's ID: a resumed training sees the same images as an uninterrupted one.
    """

    def fetch(indices: NDArray[np.int64], epoch: int) -> Batch:
        epochs = np.full(len(indices), (seed * 1_000_003 + epoch) & 0x7FFFFFFF, np.int32)
        seeds = np.stack([rows.id_hashes[indices], epochs], axis=1)
        return (np.array(rows.encoded(indices), object), seeds), rows.labels[indices]

    def prepare(inputs: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        encoded, seeds = inputs
        pixels = augment(load_images(encoded, preprocessing.image_px), seeds, strength, flips=flips)
        return scale(pixels, preprocessing.scaling)

    spec = tf.TensorSpec([None], tf.string), tf.TensorSpec([None, 2], tf.int32)
    return Source(len(rows), fetch, spec, prepare, several=rows.labels.ndim == 2)
