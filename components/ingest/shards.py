"""From sorted-out images to TFRecord shards, and the digest of what they hold."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from components.ingest.catalog import Catalog
from components.ingest.workers import ShardTask, in_processes, write_shard
from regraft_core.formats.manifest_storage import digest_of
from regraft_core.formats.manifests import SPLITS, Shard, Split, SplitInfo

IMAGES_PER_SHARD = 1000


def shard_count(images: int) -> int:
    """Return how many shards hold `images`: enough for several workers even where few."""
    return max(math.ceil(images / IMAGES_PER_SHARD), min(16, math.ceil(images / 32)))


def write_shards(
    catalog: Catalog, folder: Path, spool: Path, classes: Sequence[str], processes: int
) -> dict[Split, SplitInfo]:
    """Write every split in shards of nearly equal size, in the order of the images' ids.

    Ids are hashes, so the order is a thorough and repeatable shuffle.
    """
    counts = {split: catalog.count(f"split = '{split}'") for split in SPLITS}
    tasks = list(_tasks(catalog, folder, spool, classes, counts))
    shards: dict[str, list[Shard]] = {split: [] for split in SPLITS}
    for task, shard in zip(tasks, in_processes(write_shard, tasks, processes), strict=True):
        shards[task.split].append(shard)
    by_class = {
        split: dict.fromkeys(classes, 0)
        | dict(
            catalog.ask(
                "SELECT label, count(*) FROM images WHERE split = ? GROUP BY 1 ORDER BY 1",
                (split,),
            )
        )
        for split in SPLITS
    }
    return {
        split: SplitInfo(count=counts[split], by_class=by_class[split], shards=shards[split])  # type: ignore[misc]
        for split in SPLITS
    }


def _tasks(
    catalog: Catalog, folder: Path, spool: Path, classes: Sequence[str], counts: dict[str, int]
) -> Iterator[ShardTask]:
    for split, images in counts.items():
        shards = shard_count(images)
        bounds = [images * number // shards for number in range(shards + 1)] if shards else []
        starts = set(bounds[:-1])
        ids = catalog.ask("SELECT id FROM images WHERE split = ? ORDER BY id", (split,))
        firsts = [row[0] for position, row in enumerate(ids) if position in starts]
        for number, first in enumerate(firsts):
            yield ShardTask(
                catalog=catalog.path, spool=spool,
                target=folder / f"{split}-{number:05d}-of-{shards:05d}.tfrecord", split=split,
                first=first, count=bounds[number + 1] - bounds[number], classes=tuple(classes),
            )  # fmt: skip


def content_digest(catalog: Catalog, classes: Sequence[str]) -> str:
    """Return the SHA-256 over the classes and, by split, the sorted ids with their labels."""
    digest = hashlib.sha256(digest_of(list(classes)).encode())
    ends = {name: b" %d\n" % index for index, name in enumerate(classes)}
    for split in SPLITS:
        digest.update(f"\n{split}\n".encode())
        rows = catalog.ask("SELECT id, label FROM images WHERE split = ? ORDER BY id", (split,))
        # Joined by the thousand, as a call for each costs more than hashing it.
        while some := list(islice(rows, IMAGES_PER_SHARD)):
            digest.update(b"".join([identity + ends[label] for identity, label in some]))
    return digest.hexdigest()
