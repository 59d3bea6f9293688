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
import tensorflow as tf

from components.extract_features.backbone_choice import choose_backbone
from components.extract_features.engine_race import choose_engine
from components.extract_features.engines import (
    Arrays,
    Engine,
    Network,
    build_network,
    possible_engines,
)
from components.extract_features.forward_pass import Forward, build_forward
from components.extract_features.kept_engines import Work, engine_versions
from components.extract_features.shard_store import ShardStore
from components.extract_features.view_choice import choose_views
from regraft_core.backbones.backbone_table import Backbone, find_backbone, fixed_px
from regraft_core.backbones.build import build_backbone, weights_digest
from regraft_core.backbones.cuts import find_cut, freeze, has_cut
from regraft_core.formats.backbone_names import DIGEST_MARK
from regraft_core.formats.manifest_storage import MadeBy, digest_of, staged_folder
from regraft_core.formats.manifests.dataset import DatasetManifest, Shard, Split
from regraft_core.formats.manifests.features import FeatureShard, FeaturesManifest, Level
from regraft_core.formats.options.extract_features import FeatureOptions
from regraft_core.formats.records import read_records, shard_file
from regraft_core.formats.several_labels import check_label_options
from regraft_core.images.batch_decoding import decode_batches, make_decoder
from regraft_core.runtime.errors import DataError, InputError
from regraft_core.runtime.gpu_setup import GpuSetup, set_up_gpus
from regraft_core.runtime.out_of_memory import explain_out_of_memory, with_halved_batches
from regraft_core.runtime.step_reports import Clock, ProgressReporter, log_progress
from regraft_core.runtime.version import VERSION
from regraft_core.training.batch_limit import fitting_batch
from regraft_core.training.checkpoint import checkpoint_folder
from regraft_core.training.feature_store import CUT, GROUPS, LABELS, LEVELS
from regraft_core.training.heads import all_levels, pooled_levels, pooling_layer
from regraft_core.training.mixed_precision import gpu_capabilities
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
    """Run the frozen backbone once over a worker's part of the dataset's shards.

    Writes the pooled features and, with `keep_cut`, the activations at the cut, for `train` and
    `validation`. The first view is the original image; only `train` has further views.

    Raises:
        InputError: unknown backbone, cut or shard, unavailable weights, or activations outside
            the range of float16.
        RegraftError: the memory is exhausted.
    """
    clock = Clock()
    set_up_gpus(GpuSetup.of(options))
    if not 0 <= shard_index < shard_count:
        raise InputError(f"expected a shard index below {shard_count}, got {shard_index}")
    data = DatasetManifest.read(dataset)
    check_label_options(options, data.labels_per_image)
    options, choice = choose_backbone(Path(dataset), data, options)
    backbone = find_backbone(options.backbone, options.scaling)
    image_px = backbone.side_px(fixed_px(options.image_px))
    note = backbone.position_note(image_px)
    if note:
        log_progress(f"extract_features: {note}")
    model = build_backbone(backbone, image_px, options.weights)
    freeze(model)
    weights = weights_digest(model)
    flips_allowed = options.flips != "off"
    options, reasoning = _chosen_views(dataset, data, model, backbone, options)
    assert options.augment != "auto"
    cut = _cut_name(model, backbone, options)
    used = options.model_dump(
        include={"poolings", "levels", "keep_cut", "views", "augment", "feature_dtype", "seed"}
    )
    used["flips"] = options.flips == "on"
    shards = list(_select_shards(data, options.views, shard_index, shard_count))
    levels = _levels(model, options)
    extractor = _extractor(model, cut, levels, options, data)
    count = sum(info.count for _, info in shards)
    arrays = {name: list(tensor.shape[1:]) for name, tensor in extractor.output.items()}

    def build(engine: Engine, batch_size: int = options.batch_size) -> Network:
        return build_network(engine, model, extractor, backbone, batch_size)

    ready = choose_engine(
        possible_engines(options, gpu_capabilities()),
        Work((backbone.name, weights, arrays), count, image_px, options.batch_size),
        build,
        lambda: _first_batch(Path(dataset), shards, image_px, options.batch_size),
        alone=shard_count == 1,
    )
    engine = ready.engine
    if options.augment != "off" and options.views == 1:
        log_progress(
            "extract_features: the only view is the original image, so only strategy full trains "
            "on augmented images; use --views 4 for head and top"
        )
    # What is equal if the bits are to be equal.
    computed = [str(engine), options.batch_size, engine_versions([engine])]
    # The file of a backbone says more than its weights, such as activations.
    file_digest = backbone.name.partition(DIGEST_MARK)[2]
    inputs = [data.digest, weights, file_digest, backbone.scaling, image_px]
    content = [*inputs, cut, shard_index, shard_count, used, computed]
    digest = digest_of([*content, *([choice.without_times()] if choice else [])])
    kinds: dict[str, tuple[str, list[int]]] = {
        **{name: (options.feature_dtype, shape) for name, shape in arrays.items()},
        LABELS: ("int32", []) if data.labels_per_image == "one" else ("uint8", [len(data.classes)]),
        GROUPS: ("int64", []),
    }
    value_kb = np.dtype(options.feature_dtype).itemsize / 1e3
    image_kb = {name: math.prod(shape) * value_kb for name, shape in arrays.items()}
    sizes = ", ".join(f"{name} {kilobytes:.1f} kB" for name, kilobytes in image_kb.items())
    log_progress(f"extract_features: per image and view {sizes}")
    resumable = checkpoint_folder(options.work_dir, "features", digest)
    with staged_folder(out) as folder:
        store = ShardStore(resumable or folder, kinds, marked=resumable is not None)

        def run(batch_size: int) -> None:
            sized = options.model_copy(update={"batch_size": batch_size})
            whole = batch_size == options.batch_size
            network = ready.network if whole else build(engine, batch_size)
            forward = build_forward(network, sized, image_px, data)
            _extract(Path(dataset), shards, forward, store, options.views)

        first = fitting_batch(
            "extract_features", options.batch_size, extractor, options.gpu_memory_mb,
            half=bool(engine.half),
        )  # fmt: skip
        _, batch_size = with_halved_batches("extract_features", first, run)
        if resumable is not None:
            store.link_into(folder)
        manifest = FeaturesManifest(
            digest=digest,
            made_by=MadeBy(step="extract_features", version=VERSION, seconds=clock.seconds),
            dataset_digest=data.digest,
            classes=data.classes,
            labels_per_image=data.labels_per_image,
            backbone=backbone.name,
            weights=options.weights,
            weights_digest=weights,
            image_px=image_px,
            scaling=backbone.scaling,
            backbone_choice=choice,
            cut=cut,
            views=options.views,
            augment=options.augment,
            flips=options.flips == "on",
            flips_allowed=flips_allowed,
            seed=options.seed,
            dtype=options.feature_dtype,
            batch_size=batch_size,
            engine=engine.runtime,
            precision=engine.precision,
            arrays=arrays,
            feature_map=list(model.output.shape[1:]),
            levels=levels,
            image_kb=image_kb,
            reasoning=[text for text in (note, *reasoning, ready.sentence) if text],
            shard_index=shard_index,
            shard_count=shard_count,
            shards=[store.with_digests(info) for _, info in shards],
        )  # fmt: skip
        manifest.write(folder)
    return manifest


def _extract(
    dataset: Path,
    shards: list[tuple[Shard, FeatureShard]],
    forward: Forward,
    store: ShardStore,
    views: int,
) -> None:
    """Write the shards that the store does not contain yet, view by view."""
    for view in range(views):
        part = [(shard, info) for shard, info in shards if info.view == view]
        pending = [(shard, info) for shard, info in part if not store.contains(info)]
        files = (shard_file(dataset, shard) for shard, _ in pending)
        images = itertools.chain.from_iterable(map(read_records, files))
        count = sum(info.count for _, info in pending)
        progress = ProgressReporter(f"extract_features: view {view + 1}/{views}", count)
        rows = _Rows(_report(forward(images, view), progress))
        for _, info in pending:
            store.write(info, rows.take(info.count))
        before = len(part) - len(pending)
        reused = f", {before} of {len(part)} shards were there already" if before else ""
        log_progress(f"extract_features: view {view + 1}/{views}: {count} images{reused}")


def _first_batch(
    dataset: Path, shards: list[tuple[Shard, FeatureShard]], image_px: int, batch_size: int
) -> tf.Tensor:
    """Return the pixels of the first images, repeated if they are fewer than a batch."""
    files = (shard_file(dataset, shard) for shard, info in shards if info.view == 0)
    images = itertools.chain.from_iterable(map(read_records, files))
    first = list(itertools.islice(images, batch_size))
    batch = itertools.islice(itertools.cycle(first), batch_size)
    ((_, pixels),) = decode_batches(batch, batch_size, make_decoder(image_px))
    return pixels


def _report(batches: Iterator[Arrays], progress: ProgressReporter) -> Iterator[Arrays]:
    """Yield the batches and report the number of images."""
    done = 0
    for batch in batches:
        done += len(batch[LABELS])
        progress(done)
        yield batch


def _chosen_views(
    dataset: str | os.PathLike[str], data: DatasetManifest, model: keras.Model, backbone: Backbone,
    options: FeatureOptions,
) -> tuple[FeatureOptions, list[str]]:  # fmt: skip
    """Return the options with the chosen policy of views, and the choice in sentences."""
    if options.augment != "auto":
        return options, []
    levels = [level for level in _levels(model, options) if level.pooling == "average"]
    pooled = pooling_layer(options.poolings[0])(model.output)
    flat = pooled_levels(model, levels) if levels else keras.layers.Flatten()(pooled)
    extractor = keras.Model(model.input, flat)

    def choose(batch_size: int) -> tuple[FeatureOptions, list[str]]:
        sized = options.model_copy(update={"batch_size": batch_size})
        return choose_views(dataset, data, extractor, backbone, sized)

    with winograd(model.layers):
        (chosen, reasoning), _ = with_halved_batches("extract_features", options.batch_size, choose)
    for sentence in reasoning:
        log_progress(f"extract_features: {sentence}")
    return chosen, reasoning


def _cut_name(model: keras.Model, backbone: Backbone, options: FeatureOptions) -> str | None:
    if not options.keep_cut:
        return None
    if options.cut == "auto" and not has_cut(model):
        log_progress(
            f"extract_features: no layer of {backbone.label} has all paths through it, so there is "
            "no cut: top trains only the head"
        )
        return None
    return find_cut(model, backbone.cut if options.cut == "auto" else options.cut).name


def _levels(model: keras.Model, options: FeatureOptions) -> list[Level]:
    """Return the levels to extract, none for a head that reads only the last."""
    if options.levels == "last" or "gap" not in options.poolings:
        return []
    return all_levels(model)


def _extractor(
    model: keras.Model, cut: str | None, levels: list[Level], options: FeatureOptions,
    data: DatasetManifest,
) -> keras.Model:  # fmt: skip
    """Return the model from the backbone's input to all cached arrays.

    They include the activations at the cut unless those of all workers exceed `cache_gb`.
    """
    outputs: dict[str, Any] = {kind: pooling_layer(kind)(model.output)
                               for kind in options.poolings}  # fmt: skip
    if levels:
        outputs[LEVELS] = pooled_levels(model, levels)
    if cut is not None:
        tensor = find_cut(model, cut).tensor
        rows = data.splits["train"].count * options.views + data.splits["validation"].count
        row_bytes = math.prod(tensor.shape[1:]) * np.dtype(options.feature_dtype).itemsize
        if rows * row_bytes <= options.cache_gb * 1e9:
            outputs[CUT] = tensor
        else:
            log_progress(
                f"extract_features: activations at {cut} would take {rows * row_bytes / 1e9:.3g} "
                f"GB, more than cache-gb {options.cache_gb:g}: top will train from images"
            )
    return keras.Model(model.input, outputs)


def _select_shards(
    data: DatasetManifest, views: int, shard_index: int, shard_count: int
) -> Iterator[tuple[Shard, FeatureShard]]:
    """Yield a worker's shards: every `shard_count`-th dataset shard, in each of its views."""
    every = [(split, shard) for split in SPLITS_TO_EXTRACT for shard in data.splits[split].shards]
    for split, shard in every[shard_index::shard_count]:
        for view in range(views if split == "train" else 1):
            stem = f"{Path(shard.file).name.removesuffix('.tfrecord')}.view{view}"
            info = FeatureShard(stem=stem, split=split, view=view, count=shard.count)
            yield shard, info


class _Rows:
    """Splits a stream of batches into pieces of any length, so that batches can span shards.

    Restarting the decoding for each shard would take longer than a small shard.
    """

    def __init__(self, batches: Iterator[Arrays]) -> None:
        self._batches = batches
        self._rest: Arrays = {}

    def take(self, count: int) -> Iterator[Arrays]:
        """Yield the next `count` rows, in pieces of at most a batch.

        Raises:
            DataError: the stream ends early.
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
