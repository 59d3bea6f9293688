"""Features of a dataset from a frozen backbone, computed once, shard by shard."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from components.extract_features.forward import Arrays, Forward, forward_of
from components.extract_features.shard_store import ShardStore
from regraft_core.backbones.build import build_backbone, weights_digest
from regraft_core.backbones.cuts import find_cut, freeze
from regraft_core.backbones.table import Backbone, find_backbone
from regraft_core.formats.manifest_storage import MadeBy, digest_of, staged_folder
from regraft_core.formats.manifests import DatasetManifest, FeatureShard, FeaturesManifest, Split
from regraft_core.formats.options import FeatureOptions
from regraft_core.formats.records import read_records
from regraft_core.runtime.errors import DataError, InputError
from regraft_core.runtime.gpu_check import check_gpu
from regraft_core.runtime.out_of_memory import explain_out_of_memory
from regraft_core.runtime.step import Clock, ProgressReporter, log_progress
from regraft_core.runtime.version import VERSION
from regraft_core.training.acceleration import accelerate, gpu_capabilities, use_mixed_precision
from regraft_core.training.checkpoint import checkpoint_folder
from regraft_core.training.feature_store import CUT, LABELS
from regraft_core.training.heads import pooling_layer
from regraft_core.training.winograd import winograd

SPLITS_TO_EXTRACT: tuple[Split, ...] = ("train", "validation")


@explain_out_of_memory()
def extract_features(
    dataset: str | os.PathLike[str],
    out: str | os.PathLike[str],
    options: FeatureOptions,
    shard_index: int = 0,
    shard_count: int = 1,
) -> FeaturesManifest:
    """Run the frozen backbone once over a worker's share of the dataset's shards.

    Writes the pooled features and, where asked for, the activations at the cut, for `train` and
    `validation`. The first view is the plain image; only `train` gets further views.

    Raises:
        InputError: unknown backbone, cut or share, weights out of reach, or activations that
            float16 cannot hold.
        RegraftError: memory ran out.
    """
    clock = Clock()
    check_gpu(options.require_gpu)
    if not 0 <= shard_index < shard_count:
        raise InputError(f"expected a shard index below {shard_count}, got {shard_index}")
    data = DatasetManifest.read(dataset)
    backbone = find_backbone(options.backbone)
    image_px = backbone.side_px(options.image_px)
    model = build_backbone(backbone, image_px, options.weights)
    freeze(model)
    weights = weights_digest(model)
    cut = _cut_name(model, backbone, options)
    told = options.model_dump(
        include={"poolings", "keep_cut", "views", "augment", "feature_dtype", "seed"}
    )
    mixed = use_mixed_precision(options.precision, gpu_capabilities())
    if options.augment != "off" and options.views == 1:
        log_progress(
            "extract_features: the one view is the plain image, so only strategy full trains on "
            "augmented ones; --views 4 gives them to head and top too"
        )
    place = [shard_index, shard_count, image_px]
    digest = digest_of([data.digest, weights, cut, *place, told, mixed])
    shards = list(_share(data, options.views, shard_index, shard_count))
    extractor = _extractor(model, cut, options, data)
    arrays = {name: list(tensor.shape[1:]) for name, tensor in extractor.output.items()}
    kinds: dict[str, tuple[str, list[int]]] = {
        **{name: (options.feature_dtype, shape) for name, shape in arrays.items()},
        LABELS: ("int32", []),
    }
    work = checkpoint_folder(options.work_dir, "extract_features", digest)
    with (
        staged_folder(out) as folder,
        accelerate(model.layers, mixed=mixed),
        winograd(model.layers),
    ):
        forward = forward_of(extractor, backbone, options, image_px)
        store = ShardStore(work or folder, kinds, marked=work is not None)
        _extract(Path(dataset), shards, forward, store, options.views)
        if work is not None:
            store.link_into(folder)
        manifest = FeaturesManifest(
            digest=digest,
            made_by=MadeBy(step="extract_features", version=VERSION, seconds=clock.seconds),
            dataset_digest=data.digest,
            classes=data.classes,
            backbone=backbone.name,
            weights=options.weights,
            weights_digest=weights,
            image_px=image_px,
            cut=cut,
            views=options.views,
            augment=options.augment,
            seed=options.seed,
            dtype=options.feature_dtype,
            arrays=arrays,
            feature_map=list(model.output.shape[1:]),
            shard_index=shard_index,
            shard_count=shard_count,
            shards=[info for _, info in shards],
        )  # fmt: skip
        manifest.write(folder)
    return manifest


def _extract(
    dataset: Path,
    shards: list[tuple[str, FeatureShard]],
    forward: Forward,
    store: ShardStore,
    views: int,
) -> None:
    """Write the shards that the store does not hold yet, by one pass over the images a view."""
    for view in range(views):
        part = [(file, info) for file, info in shards if info.view == view]
        pending = [(file, info) for file, info in part if not store.holds(info)]
        files = [dataset / file for file, _ in pending]
        images = itertools.chain.from_iterable(map(read_records, files))
        count = sum(info.count for _, info in pending)
        pulse = ProgressReporter(f"extract_features: view {view + 1}/{views}", count)
        rows = _Rows(_told(forward(images, view), pulse))
        for _, info in pending:
            store.write(info, rows.take(info.count))
        before = len(part) - len(pending)
        held = f", {before} of {len(part)} shards were there already" if before else ""
        log_progress(f"extract_features: view {view + 1}/{views}: {count} images{held}")


def _told(batches: Iterator[Arrays], pulse: ProgressReporter) -> Iterator[Arrays]:
    """Yield the batches and tell how many images have come."""
    done = 0
    for batch in batches:
        done += len(batch[LABELS])
        pulse(done)
        yield batch


def _cut_name(model: keras.Model, backbone: Backbone, options: FeatureOptions) -> str | None:
    if not options.keep_cut:
        return None
    wanted = backbone.cut if options.cut == "auto" else options.cut
    return find_cut(model, wanted).name


def _extractor(
    model: keras.Model, cut: str | None, options: FeatureOptions, data: DatasetManifest
) -> keras.Model:
    """Return the model from the backbone's input to all arrays that are kept.

    The activations at the cut are among them unless those of all workers exceed the disk budget.
    """
    outputs: dict[str, Any] = {kind: pooling_layer(kind)(model.output)
                               for kind in options.poolings}  # fmt: skip
    if cut is not None:
        tensor = find_cut(model, cut).tensor
        rows = data.splits["train"].count * options.views + data.splits["validation"].count
        row_bytes = math.prod(tensor.shape[1:]) * np.dtype(options.feature_dtype).itemsize
        if rows * row_bytes <= options.cache_gb * 1e9:
            outputs[CUT] = tensor
        else:
            log_progress(
                f"extract_features: activations at {cut} would take {rows * row_bytes / 1e9:.3g} "
                f"GB, more than cache-gb {options.cache_gb:g}: top will stream images"
            )
    return keras.Model(model.input, outputs)


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
                    raise DataError(f"expected {count} more images in the shards") from None
            piece = {name: values[:count] for name, values in self._rest.items()}
            self._rest = {name: values[count:] for name, values in self._rest.items()}
            count -= len(piece[LABELS])
            yield piece
