"""TFRecord shards of the catalog's images, and the digest of the dataset."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from components.ingest.catalog.catalog import Catalog
from components.ingest.catalog.counts import count_by_label, count_by_split, count_split_images
from components.ingest.spool import StoredImageReader
from regraft_core.formats.manifest_storage import digest_file, digest_of
from regraft_core.formats.manifests.dataset import SPLITS, Shard, Split, SplitInfo
from regraft_core.formats.records import NO_LABEL, ImageRecord, write_records
from regraft_core.parallel.executor import Executor
from regraft_core.runtime.step_reports import ProgressReporter

IMAGES_PER_SHARD = 1000


@dataclass(frozen=True)
class Labels:
    """The classes of a dataset, and whether an image has a list of them."""

    classes: tuple[str, ...]
    several: bool


@dataclass(frozen=True)
class ShardTask:
    """One shard to write: `count` images of a split, by id, from the id `first`."""

    catalog: Path
    spool: Path
    target: Path
    split: str
    first: bytes
    count: int
    labels: Labels


def shard_count(images: int) -> int:
    """Return the number of shards for `images`: several, even for few, so that workers share."""
    return max(math.ceil(images / IMAGES_PER_SHARD), min(16, math.ceil(images / 32)))


def write_shards(
    catalog: Catalog, folder: Path, spool: Path, classes: Sequence[str], executor: Executor,
    *, several: bool = False,
) -> dict[Split, SplitInfo]:  # fmt: skip
    """Write each split in shards of nearly equal size, in the order of the images' ids.

    Ids are hashes, so the order is a repeatable shuffle. With `several`, an image has a list of
    labels.
    """
    by_split = count_by_split(catalog)
    by_class = {split: dict.fromkeys(classes, 0) | by_split.get(split, {}) for split in SPLITS}
    counts = dict.fromkeys(SPLITS, 0) | count_split_images(catalog)
    shared = Labels(tuple(classes), several)
    tasks = [
        task
        for split in SPLITS
        for task in _shard_tasks(catalog, folder, spool, shared, split, counts[split])
    ]
    shards: dict[str, list[Shard]] = {split: [] for split in SPLITS}
    progress = ProgressReporter("ingest: images written", sum(counts.values()))
    for task, shard in zip(tasks, executor.map(write_shard, tasks, "ingest"), strict=True):
        shards[task.split].append(shard)
        progress.advance(shard.count)
    return {
        split: SplitInfo(count=counts[split], by_class=by_class[split], shards=shards[split])  # type: ignore[misc]
        for split in SPLITS
    }


def _shard_tasks(
    catalog: Catalog, folder: Path, spool: Path, labels: Labels, split: str, images: int
) -> Iterator[ShardTask]:
    shards = shard_count(images)
    bounds = [images * number // shards for number in range(shards + 1)] if shards else []
    starts = set(bounds[:-1])
    rows = enumerate(catalog.ids_and_labels(split))
    firsts = [identity for position, (identity, _) in rows if position in starts]
    for number, first in enumerate(firsts):
        yield ShardTask(
            catalog=catalog.path, spool=spool,
            target=folder / f"{split}-{number:05d}-of-{shards:05d}.tfrecord", split=split,
            first=first, count=bounds[number + 1] - bounds[number], labels=labels,
        )  # fmt: skip


def write_shard(task: ShardTask) -> Shard:
    """Write one shard from the spool or, for larger images, from the source."""
    catalog = Catalog(task.catalog)
    numbers = {name: index for index, name in enumerate(task.labels.classes)}
    several = task.labels.several
    try:
        images = catalog.stored_images(task.split, task.first, task.count)
        with StoredImageReader(task.spool) as reader:
            records = (
                ImageRecord(
                    reader.read(image),
                    NO_LABEL if several else numbers[label],
                    image.id.hex(),
                    os.fsdecode(image.path),
                    image.key,
                    tuple(json.loads(image.slices)) if image.slices else (),
                    tuple(numbers[name] for name in json.loads(label)) if several else None,
                )
                for label, image in images
            )
            count = write_records(task.target, records)
    finally:
        catalog.close()
    return Shard(file=task.target.name, count=count, sha256=digest_file(task.target))


def content_digest(
    catalog: Catalog, classes: Sequence[str], slices: Sequence[str] = (), *, several: bool = False
) -> str:
    """Return the SHA-256 of the classes and, by split, the sorted ids with their labels.

    It covers the names and values of slices, if there are any. With `several`, an image has a list
    of labels.
    """
    digest = hashlib.sha256(digest_of(list(classes)).encode())
    ends = {name: b" %d\n" % index for index, name in enumerate(classes)}
    if several:
        digest.update(b"\nseveral labels\n")
        ends = {
            label: b"%s\n" % b"".join(ends[name][:-1] for name in json.loads(label))
            for label in count_by_label(catalog)
        }
    for split in SPLITS:
        digest.update(f"\n{split}\n".encode())
        rows = catalog.ids_and_labels(split)
        # Joined by the thousand, because a call for each id costs more than hashing it.
        while batch := list(islice(rows, IMAGES_PER_SHARD)):
            digest.update(b"".join([identity + ends[label] for identity, label in batch]))
    if slices:
        digest.update(digest_of(list(slices)).encode())
        for split in SPLITS:
            for identity, values in catalog.ids_and_slices(split):
                digest.update(identity + values.encode() + b"\n")
    return digest.hexdigest()
