"""Extracts shards: in this process, or in a worker that is prepared by plain data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from components.extract_features.engines import Arrays, Engine, build_network
from components.extract_features.extractor import build_extractor, choose_levels
from components.extract_features.forward_pass import Forward, build_forward
from components.extract_features.operation_threads import add_operation_threads
from components.extract_features.shard_store import Digests, Kinds, ShardStore
from regraft_core.backbones.backbone_table import find_backbone
from regraft_core.backbones.build import build_backbone, weights_digest
from regraft_core.backbones.cuts import freeze
from regraft_core.formats.manifests.dataset import DatasetManifest, Shard
from regraft_core.formats.manifests.features import FeatureShard
from regraft_core.formats.options.extract_features import FeatureOptions
from regraft_core.formats.records import read_records, shard_file
from regraft_core.runtime.errors import DataError, InputError
from regraft_core.runtime.gpu_setup import GpuSetup, set_up_gpus
from regraft_core.training.feature_store import LABELS

IMAGES_PER_TASK = 512
"""Few enough to share among workers and to repeat, enough to keep the cores busy."""
ShardPair = tuple[Shard, FeatureShard]
"""A shard of the dataset, and that of its features."""


@dataclass(frozen=True)
class ExtractionSetup:
    """What has been decided for all workers of an extraction."""

    dataset: Path
    options: FeatureOptions
    image_px: int
    weights_digest: str
    cut: str | None
    engine: Engine
    folder: Path
    kinds: Kinds
    marked: bool


def prepare_extraction(setup: ExtractionSetup) -> Callable[[list[ShardPair]], Digests]:
    """Load the backbone; return the function that extracts shards of one view.

    Raises:
        InputError: this machine has other weights of the backbone.
    """
    options = setup.options
    set_up_gpus(GpuSetup.of(options))
    add_operation_threads()
    data = DatasetManifest.read(setup.dataset)
    backbone = find_backbone(options.backbone, options.scaling)
    model = build_backbone(backbone, setup.image_px, options.weights)
    freeze(model)
    if weights_digest(model) != setup.weights_digest:
        raise InputError(f"weights: expected the same of {backbone.label} on all nodes")
    levels = choose_levels(model, options)
    extractor = build_extractor(model, setup.cut, levels, options, data)
    network = build_network(setup.engine, model, extractor, backbone, options.batch_size)
    forward = build_forward(network, options, setup.image_px, data)
    store = ShardStore(setup.folder, setup.kinds, marked=setup.marked)

    def extract(shards: list[ShardPair]) -> Digests:
        extract_shards(setup.dataset, forward, store, shards, lambda count: None)
        return store.digests([info for _, info in shards])

    return extract


def split_tasks(shards: Sequence[ShardPair]) -> Iterator[list[ShardPair]]:
    """Yield the shards in parts of one view and about `IMAGES_PER_TASK` images."""
    for _, of_view in groupby(shards, lambda pair: pair[1].view):
        part: list[ShardPair] = []
        for pair in of_view:
            part.append(pair)
            if sum(info.count for _, info in part) >= IMAGES_PER_TASK:
                yield part
                part = []
        if part:
            yield part


def extract_shards(
    dataset: Path,
    forward: Forward,
    store: ShardStore,
    shards: Sequence[ShardPair],
    report: Callable[[int], None],
) -> None:
    """Write the features of shards of one view.

    Args:
        dataset: the dataset.
        forward: computes the features.
        store: where they are written.
        shards: the shards.
        report: called with the number of images of each batch.

    Raises:
        DataError: a shard has another number of images than the dataset's manifest says.
    """
    if not shards:
        return
    images = ((shard.count, read_records(shard_file(dataset, shard))) for shard, _ in shards)
    batches = forward(images, shards[0][1].view)
    for shard, info in shards:
        store.write(info, _of_shard(shard, batches, report))


def _of_shard(
    shard: Shard, batches: Iterator[Arrays], report: Callable[[int], None]
) -> Iterator[Arrays]:
    """Yield the batches of one shard."""
    missing = shard.count
    while missing > 0:
        batch = next(batches, None)
        missing -= len(batch[LABELS]) if batch else missing + 1
        if batch is None or missing < 0:
            raise DataError(f"expected {shard.count} images in {shard.file}")
        report(len(batch[LABELS]))
        yield batch
