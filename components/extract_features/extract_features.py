"""Features of a dataset from a frozen backbone, computed once, shard by shard."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from components.extract_features.backbone_choice import choose_backbone
from components.extract_features.engine_race import choose_engine
from components.extract_features.engines import (
    Engine,
    Network,
    build_network,
    possible_engines,
)
from components.extract_features.extractor import build_extractor, choose_cut, choose_levels
from components.extract_features.forward_pass import build_forward
from components.extract_features.kept_engines import Work, engine_versions
from components.extract_features.operation_threads import add_operation_threads
from components.extract_features.shard_extraction import (
    ExtractionSetup,
    ShardPair,
    extract_shards,
    prepare_extraction,
    split_tasks,
)
from components.extract_features.shard_store import Kinds, ShardStore
from components.extract_features.view_choice import choose_views
from regraft_core.backbones.backbone_table import Backbone, find_backbone, fixed_px
from regraft_core.backbones.build import build_backbone, weights_digest
from regraft_core.backbones.cuts import freeze
from regraft_core.formats.backbone_names import DIGEST_MARK
from regraft_core.formats.manifest_storage import MadeBy, digest_of, staged_folder
from regraft_core.formats.manifests.dataset import DatasetManifest, Shard, Split
from regraft_core.formats.manifests.features import FeatureShard, FeaturesManifest
from regraft_core.formats.options.extract_features import FeatureOptions
from regraft_core.formats.records import read_records, shard_file
from regraft_core.formats.several_labels import check_label_options
from regraft_core.images.batch_decoding import decode_batches, make_decoder
from regraft_core.parallel.executor import Executor
from regraft_core.runtime.errors import InputError
from regraft_core.runtime.gpu_setup import GpuSetup, set_up_gpus
from regraft_core.runtime.object_stores import is_store_uri
from regraft_core.runtime.out_of_memory import explain_out_of_memory, with_halved_batches
from regraft_core.runtime.step_reports import Clock, ProgressReporter, log_progress
from regraft_core.runtime.version import VERSION
from regraft_core.training.batch_limit import fitting_batch
from regraft_core.training.checkpoint import checkpoint_folder
from regraft_core.training.feature_store import GROUPS, LABELS
from regraft_core.training.heads import pooled_levels, pooling_layer
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
    executor: Executor | None = None,
) -> FeaturesManifest:
    """Run the frozen backbone once over a worker's part of the dataset's shards.

    Writes the pooled features and, with `keep_cut`, the activations at the cut, for `train` and
    `validation`. The first view is the original image; only `train` has further views.

    What is decided once is decided here: backbone, cut, views and engine. With an `executor`, its
    workers extract the shards, otherwise this process does; the result is the same.

    Raises:
        InputError: unknown backbone, cut or shard, unavailable weights, or activations outside
            the range of float16.
        RegraftError: the memory is exhausted.
    """
    clock = Clock()
    set_up_gpus(GpuSetup.of(options))
    add_operation_threads()
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
    cut = choose_cut(model, backbone, options)
    used = options.model_dump(
        include={"poolings", "levels", "keep_cut", "views", "augment", "feature_dtype", "seed"}
    )
    used["flips"] = options.flips == "on"
    shards = list(_select_shards(data, options.views, shard_index, shard_count))
    levels = choose_levels(model, options)
    extractor = build_extractor(model, cut, levels, options, data)
    count = sum(info.count for _, info in shards)
    arrays = {name: list(tensor.shape[1:]) for name, tensor in extractor.output.items()}

    def build(engine: Engine, batch_size: int = 0) -> Network:
        size = batch_size or engine.batch_size or options.batch_size
        return build_network(engine, model, extractor, backbone, size)

    ready = choose_engine(
        possible_engines(options, gpu_capabilities()),
        Work((backbone.name, weights, arrays), count, image_px, options.batch_size),
        build,
        lambda: _first_batch(Path(dataset), shards, image_px, options.batch_size),
        alone=shard_count == 1,
    )
    engine = ready.engine
    requested = engine.batch_size or options.batch_size
    if options.augment != "off" and options.views == 1:
        log_progress(
            "extract_features: the only view is the original image, so only strategy full trains "
            "on augmented images; use --views 4 for head and top"
        )
    # What is equal if the bits are to be equal.
    computed = [str(engine), requested, engine_versions([engine])]
    # The file of a backbone says more than its weights, such as activations.
    file_digest = backbone.name.partition(DIGEST_MARK)[2]
    inputs = [data.digest, weights, file_digest, backbone.scaling, image_px]
    content = [*inputs, cut, shard_index, shard_count, used, computed]
    digest = digest_of([*content, *([choice.without_times()] if choice else [])])
    kinds: Kinds = {
        **{name: (options.feature_dtype, shape) for name, shape in arrays.items()},
        LABELS: ("int32", []) if data.labels_per_image == "one" else ("uint8", [len(data.classes)]),
        GROUPS: ("int64", []),
    }
    value_kb = np.dtype(options.feature_dtype).itemsize / 1e3
    image_kb = {name: math.prod(shape) * value_kb for name, shape in arrays.items()}
    sizes = ", ".join(f"{name} {kilobytes:.1f} kB" for name, kilobytes in image_kb.items())
    log_progress(f"extract_features: per image and view {sizes}")
    # Workers on other machines cannot see this machine's copy of a bucket's folder.
    here = executor is None or not is_store_uri(options.work_dir)
    resumable = checkpoint_folder(options.work_dir, "features", digest) if here else None
    with staged_folder(out) as folder:
        store = ShardStore(resumable or folder, kinds, marked=resumable is not None)

        def run(batch_size: int) -> None:
            sized = options.model_copy(update={"batch_size": batch_size})
            whole = batch_size == requested
            if executor is None:
                network = ready.network if whole else build(engine, batch_size)
                forward = build_forward(network, sized, image_px, data)
                extract = partial(extract_shards, Path(dataset), forward, store)
            else:
                setup = ExtractionSetup(
                    Path(dataset).absolute(), sized, image_px, weights, cut, engine,
                    store.folder.absolute(), kinds, resumable is not None,
                )  # fmt: skip
                extract = partial(_extract_by_workers, executor, setup, store)
            _extract(shards, store, options.views, extract)

        first = fitting_batch(
            "extract_features", requested, extractor, options.gpu_memory_mb,
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
            xla=engine.xla,
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
    shards: list[ShardPair],
    store: ShardStore,
    views: int,
    extract: Callable[[list[ShardPair], Callable[[int], None]], None],
) -> None:
    """Write the shards that the store does not contain yet, view by view."""
    for view in range(views):
        part = [(shard, info) for shard, info in shards if info.view == view]
        pending = [(shard, info) for shard, info in part if not store.contains(info)]
        count = sum(info.count for _, info in pending)
        progress = ProgressReporter(f"extract_features: view {view + 1}/{views}", count)
        extract(pending, progress.advance)
        before = len(part) - len(pending)
        reused = f", {before} of {len(part)} shards were there already" if before else ""
        log_progress(f"extract_features: view {view + 1}/{views}: {count} images{reused}")


def _extract_by_workers(
    executor: Executor,
    setup: ExtractionSetup,
    store: ShardStore,
    shards: list[ShardPair],
    report: Callable[[int], None],
) -> None:
    """Have workers write shards of one view."""
    counts = {info.stem: info.count for _, info in shards}
    tasks = split_tasks(shards)
    for digests in executor.map_prepared(prepare_extraction, setup, tasks, "extract_features"):
        store.add(digests)
        report(sum(counts[stem] for stem in digests))


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


def _chosen_views(
    dataset: str | os.PathLike[str], data: DatasetManifest, model: keras.Model, backbone: Backbone,
    options: FeatureOptions,
) -> tuple[FeatureOptions, list[str]]:  # fmt: skip
    """Return the options with the chosen policy of views, and the choice in sentences."""
    if options.augment != "auto":
        return options, []
    levels = [level for level in choose_levels(model, options) if level.pooling == "average"]
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
