"""Features of a dataset from a frozen backbone, computed once, shard by shard."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from components.core.artifacts import (
    DatasetManifest,
    FeatureShard,
    FeaturesManifest,
    MadeBy,
    Split,
    digest_of,
    staged_folder,
)
from components.core.augment import augment
from components.core.backbones import Backbone, build_backbone, find_backbone, weights_digest
from components.core.errors import DataError, InputError
from components.core.feature_store import LABELS, array_file
from components.core.models import pooling_layer
from components.core.options import FeatureOptions
from components.core.pictures import pictures_of
from components.core.preprocess import scale
from components.core.step import Clock, say
from components.core.surgery import find_cut, freeze
from components.core.version import VERSION

Arrays = dict[str, NDArray[Any]]
FLOAT16_MAX = 65504.0
SPLITS_TO_EXTRACT: tuple[Split, ...] = ("train", "validation")


def extract_features(
    dataset: str | os.PathLike[str],
    out: str | os.PathLike[str],
    options: FeatureOptions,
    shard_index: int = 0,
    shard_count: int = 1,
) -> FeaturesManifest:
    """Run the frozen backbone once over a worker's share of the dataset's shards.

    Writes the pooled features and, where asked for, the activations at the cut, for `train` and
    `validation`. The first view is the plain picture; only `train` gets further views.

    Raises:
        InputError: unknown backbone, cut or share, weights out of reach, or activations that
            float16 cannot hold.
    """
    clock = Clock()
    if not 0 <= shard_index < shard_count:
        raise InputError(f"expected a shard index below {shard_count}, got {shard_index}")
    data = DatasetManifest.read(dataset)
    backbone = find_backbone(options.backbone)
    image_px = options.image_px or backbone.image_px
    model = build_backbone(backbone, image_px, options.weights)
    freeze(model)
    cut = _cut_name(model, backbone, options)
    extractor = _extractor(model, cut, options)
    arrays = {name: list(tensor.shape[1:]) for name, tensor in extractor.output.items()}
    forward = _forward(extractor, backbone, options)
    shards = list(_share(data, options.views, shard_index, shard_count))
    with staged_folder(out) as folder:
        for view in range(options.views):
            part = [(file, info) for file, info in shards if info.view == view]
            files = [Path(dataset) / file for file, _ in part]
            batches = pictures_of(files, image_px, options.batch_size)
            rows = _Rows(forward(batches, view))
            for _, info in part:
                _write_shard(folder, info, arrays, options.dtype, rows)
            count = sum(info.count for _, info in part)
            say(f"extract_features: view {view + 1}/{options.views}: {count} pictures")
        manifest = FeaturesManifest(
            digest=digest_of([data.digest, weights_digest(model), cut, shard_index, shard_count,
                              image_px, options.model_dump(exclude={"weights", "batch_size",
                                                                    "require_gpu"})]),
            made_by=MadeBy(step="extract_features", version=VERSION, seconds=clock.seconds),
            dataset_digest=data.digest,
            classes=data.classes,
            backbone=backbone.name,
            weights=options.weights,
            weights_digest=weights_digest(model),
            image_px=image_px,
            cut=cut,
            views=options.views,
            augment=options.augment,
            seed=options.seed,
            dtype=options.dtype,
            arrays=arrays,
            feature_map=list(model.output.shape[1:]),
            shard_index=shard_index,
            shard_count=shard_count,
            shards=[info for _, info in shards],
        )  # fmt: skip
        manifest.write(folder)
    return manifest


def _cut_name(model: keras.Model, backbone: Backbone, options: FeatureOptions) -> str | None:
    if not options.keep_cut:
        return None
    wanted = backbone.cut if options.cut == "auto" else options.cut
    return find_cut(model, wanted).name


def _extractor(model: keras.Model, cut: str | None, options: FeatureOptions) -> keras.Model:
    """Return the model from the backbone's input to all arrays that are kept."""
    outputs: dict[str, Any] = {kind: pooling_layer(kind)(model.output)
                               for kind in options.poolings}  # fmt: skip
    if cut is not None:
        outputs["cut"] = find_cut(model, cut).tensor
    return keras.Model(model.input, outputs)


def _forward(extractor: keras.Model, backbone: Backbone, options: FeatureOptions) -> Any:
    """Return a function from picture batches and a view's number to batches of arrays."""

    @tf.function(reduce_retracing=True)
    def run(pixels: tf.Tensor, ids: tf.Tensor, view: tf.Tensor) -> dict[str, tf.Tensor]:
        if options.augment != "off":
            drawn = _seeds(ids, view, options.seed)
            pixels = tf.cond(
                view > 0, lambda: augment(pixels, drawn, options.augment), lambda: pixels
            )
        return extractor(scale(pixels, backbone.scaling), training=False)

    def batches(pictures: tf.data.Dataset, view: int) -> Iterator[Arrays]:
        for batch in pictures:
            arrays = run(batch["pixels"], batch["id"], tf.constant(view))
            yield {
                **{name: array.numpy() for name, array in arrays.items()},
                LABELS: batch["label"].numpy(),
            }

    return batches


def _seeds(ids: tf.Tensor, view: tf.Tensor, seed: int) -> tf.Tensor:
    """Return a seed a picture, int32 [n, 2], from its id, the view and the run's seed."""
    by_id = tf.strings.to_hash_bucket_fast(ids, 2**31 - 1)
    return tf.stack(
        [tf.cast(by_id, tf.int32), tf.fill(tf.shape(ids), view * 1_000_003 + seed)], axis=1
    )


def _share(
    data: DatasetManifest, views: int, shard_index: int, shard_count: int
) -> Iterator[tuple[str, FeatureShard]]:
    """Yield a worker's share: every `shard_count`-th dataset shard, in each of its views."""
    every = [(split, shard) for split in SPLITS_TO_EXTRACT for shard in data.splits[split].shards]
    for split, shard in every[shard_index::shard_count]:
        for view in range(views if split == "train" else 1):
            stem = f"{Path(shard.file).name.removesuffix('.tfrecord')}.view{view}"
            info = FeatureShard(stem=stem, split=split, view=view, count=shard.count)
            yield shard.file, info


class _Rows:
    """Cuts a stream of batches into pieces of any length, so that batches may span shards.

    A pass of its own a shard would start the decoding anew, which takes longer than a small shard.
    """

    def __init__(self, batches: Iterator[Arrays]) -> None:
        self._batches = batches
        self._rest: Arrays = {}

    def take(self, count: int) -> Iterator[Arrays]:
        """Yield the next `count` rows, in pieces of a batch at most.

        Raises:
            DataError: the stream ends before.
        """
        while count:
            if not self._rest or not len(self._rest[LABELS]):
                try:
                    self._rest = next(self._batches)
                except StopIteration:
                    raise DataError(f"expected {count} more pictures in the shards") from None
            piece = {name: values[:count] for name, values in self._rest.items()}
            self._rest = {name: values[count:] for name, values in self._rest.items()}
            count -= len(piece[LABELS])
            yield piece


def _write_shard(
    folder: Path, info: FeatureShard, arrays: dict[str, list[int]], dtype: str, rows: _Rows
) -> None:
    """Write one shard's arrays through memory maps, batch by batch.

    Raises:
        InputError: a value is too large for float16.
    """
    kinds = {name: (dtype, shape) for name, shape in arrays.items()} | {LABELS: ("int32", [])}
    maps = {
        name: np.lib.format.open_memmap(
            array_file(folder, info.stem, name), "w+", kind, (info.count, *shape)
        )
        for name, (kind, shape) in kinds.items()
    }
    done = 0
    for piece in rows.take(info.count):
        count = len(piece[LABELS])
        for name, values in piece.items():
            if maps[name].dtype == np.float16 and not np.abs(values).max() < FLOAT16_MAX:
                raise InputError(
                    f"the activations of {name!r} reach {np.abs(values).max():.0f}, beyond "
                    "float16; use --dtype float32"
                )
            maps[name][done : done + count] = values
        done += count
    for array in maps.values():
        array.flush()
