"""The work that runs in several processes: looking at images, and writing shards."""

from __future__ import annotations

import hashlib
import itertools
import multiprocessing
import os
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from components.ingest.catalog import Catalog
from components.ingest.checks.image_bytes import (
    MAX_FILE_BYTES,
    STORED_COLUMNS,
    StoredImages,
    read_image,
)
from components.ingest.checks.image_stats import MIN_LOOK_SIDE_PX, ImageStats, measure_small_images
from components.ingest.checks.invalid_image import InvalidImageError
from components.ingest.checks.png import SmallPng, small_png
from components.ingest.checks.validate import examine
from components.ingest.sources.download_retry import FetchError
from components.ingest.sources.folders import Item
from components.ingest.sources.http import read_address
from components.ingest.sources.object_store import read_object
from components.ingest.splits.assignment import key_of, split_of, thresholds
from regraft_core.formats.manifest_storage import digest_file
from regraft_core.formats.manifests import Shard
from regraft_core.formats.options import IngestOptions
from regraft_core.formats.records import ImageRecord, write_records
from regraft_core.runtime.errors import RegraftError

CHUNK = 256
SPOOL_BYTES = 64 * 1024
"""Smaller images are kept in a spool on first reading, as opening them again costs more."""


@dataclass(frozen=True)
class Looking:
    """What a worker needs to know to look at images."""

    spool: Path
    options: IngestOptions


@dataclass(frozen=True)
class Drawing:
    """How an image's split follows from its content: the seed of its key, and the thresholds."""

    seed: int
    ends: tuple[int, int]


@dataclass
class Found:
    """What a worker found in one chunk: good images, and files to quarantine.

    Each image is a bare tuple of `Image`, which crosses to another process in half the time.
    """

    images: list[tuple]
    bad: list[tuple[bytes, str, str]]


def measure_chunk(task: tuple[list[tuple], Looking]) -> Found:
    """Read, decode and measure the files of one chunk; spool the bytes to store."""
    items, looking = task
    options, found = looking.options, Found([], [])
    hashed = options.near_duplicates != "off"
    small: list[tuple[Item, bytes, SmallPng]] = []
    # One spool for each process, so that whoever reads them all need not open many.
    own = os.getpid()
    ends = thresholds(options.validation_fraction, options.test_fraction)
    drawing = Drawing(options.seed, ends)
    with warnings.catch_warnings(), open(looking.spool / str(own), "ab") as file:
        # Pillow warns of odd EXIF, palettes and the like, which are no fault of an image.
        warnings.simplefilter("ignore")
        spool = Spool(own, file, file.tell())
        for item in map(Item._make, items):
            try:
                data = _read(item, options)
                unpacked = small_png(data, side_px=MIN_LOOK_SIDE_PX, max_pixels=options.max_pixels)
                if unpacked:
                    small.append((item, data, unpacked))
                    continue
                look = examine(data, max_pixels=options.max_pixels, look=hashed)
            except InvalidImageError as bad:
                found.bad.append((os.fsencode(item.path), bad.reason, bad.detail))
                continue
            found.images.append(_image(item, data, look, spool, drawing))
        looks = measure_small_images([unpacked for *_, unpacked in small], hashed=hashed)
        for (item, data, _), look in zip(small, looks, strict=True):
            found.images.append(_image(item, data, look, spool, drawing))
    return found


@dataclass
class Spool:
    """A file of bytes to store, written by one worker."""

    number: int
    file: BinaryIO
    end: int

    def keep(self, data: bytes) -> int:
        """Append `data`; return where it starts."""
        start = self.end
        self.file.write(data)
        self.end += len(data)
        return start


def _read(item: Item, options: IngestOptions) -> bytes:
    return read_remote(item.file, options) if "://" in item.file else read_image(item.file)


def _image(item: Item, data: bytes, look: ImageStats, spool: Spool, drawing: Drawing) -> tuple:
    """Describe a good image for the catalog; spool its bytes if it is small or not a file.

    Returns:
        The fields of `Image` in order, bare, as naming them takes longer than hashing the bytes.
    """
    stored = data if look.encoded is None else look.encoded
    start, spooled, file = 0, -1, item.file
    if look.encoded is not None or len(data) <= SPOOL_BYTES or "://" in file:
        start, spooled, file = spool.keep(stored), spool.number, ""
    digest = hashlib.sha256(data).digest()
    unit = b"group " + os.fsencode(item.group) if item.group else digest
    key = key_of(unit, drawing.seed)
    signed = look.hash64 - (1 << 64) if look.hash64 >> 63 else look.hash64
    return (
        digest, key, os.fsencode(item.path), os.fsencode(file),
        item.label, item.split, int(bool(item.group)), spooled, start, len(stored),
        look.form, look.width, look.height, ",".join(look.conversions), ",".join(look.notes),
        signed, look.thumb or None, item.split or split_of(key, drawing.ends),
    )  # fmt: skip


def read_remote(address: str, options: IngestOptions) -> bytes:
    """Return the bytes of an image that a table names by an address.

    Raises:
        BadImageError: it cannot be had.
    """
    read = read_address if address.startswith(("http://", "https://")) else read_object
    try:
        return read(address, options, MAX_FILE_BYTES)
    except FetchError as error:
        raise InvalidImageError("unreadable", str(error)) from error


@dataclass(frozen=True)
class ShardTask:
    """One shard to write: `count` images of a split, by id, from the id `first` on."""

    catalog: Path
    spool: Path
    target: Path
    split: str
    first: bytes
    count: int
    classes: tuple[str, ...]


def write_shard(task: ShardTask) -> Shard:
    """Write one shard from the spool or, for larger images, from the source."""
    catalog = Catalog(task.catalog)
    labels = {name: index for index, name in enumerate(task.classes)}
    try:
        rows = catalog.ask(
            f"SELECT label, {STORED_COLUMNS} FROM images WHERE split = ?"  # noqa: S608
            " AND id >= ? ORDER BY id LIMIT ?",
            (task.split, task.first, task.count),
        )
        with StoredImages(task.spool) as stored:
            records = (
                ImageRecord(stored.read(row), labels[label], row[0].hex(), os.fsdecode(row[1]))
                for label, *row in rows
            )
            count = write_records(task.target, records)
    finally:
        catalog.close()
    return Shard(file=task.target.name, count=count, sha256=digest_file(task.target))


def in_chunks(items: Iterable[Item], looking: Looking) -> Iterator[tuple[list[tuple], Looking]]:
    """Cut a stream of files into the workers' tasks."""
    items = iter(items)
    while chunk := list(map(tuple, itertools.islice(items, CHUNK))):
        yield chunk, looking


def processes_of(wanted: int) -> int:
    """Return the number of processes: as wanted, or one for each core that we may use."""
    if wanted:
        return wanted
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _end_with_parent() -> None:
    """See that this worker ends when its parent is killed, as it would wait for tasks for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent,), daemon=True).start()


def _end_after(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os._exit(1)


def in_processes(
    function: Callable[[Any], Any], tasks: Iterable[Any], processes: int
) -> Iterator[Any]:
    """Yield the results of `function` in the order of `tasks`, with few of them in flight.

    Raises:
        RegraftError: a worker was killed, for instance for its memory.
    """
    if processes == 1:
        yield from map(function, tasks)
        return
    # Forking costs nothing and is safe while there is one thread; otherwise start afresh.
    calm = sys.platform == "linux" and threading.active_count() == 1
    context = multiprocessing.get_context("fork" if calm else "spawn")
    waiting: deque[Future] = deque()
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_end_with_parent)
    try:
        for task in tasks:
            waiting.append(pool.submit(function, task))
            if len(waiting) > 2 * processes:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise RegraftError("a worker process was killed; is there enough memory?") from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
