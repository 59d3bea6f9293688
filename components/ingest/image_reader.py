"""Reading images in worker processes: bytes, checks, measurements, key and split of each file."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from components.ingest.checks.image_stats import (
    MIN_HASHED_SIDE_PX,
    ImageStats,
    measure_small_images,
)
from components.ingest.checks.image_validation import validate_image
from components.ingest.checks.invalid_image import InvalidImageError
from components.ingest.checks.png import PlainPng, unpack_small
from components.ingest.crops import CLIPPED, CropReader
from components.ingest.sources.download import read_url
from components.ingest.sources.download_retry import FetchError, UnreachableError
from components.ingest.sources.folders import LabeledFile
from components.ingest.sources.source_context import MAX_IMAGE_BYTES
from components.ingest.sources.transfer_progress import DownloadSizeError
from components.ingest.splits.split_keys import split_key, split_of, thresholds
from components.ingest.spool import PartReader, SpoolWriter, read_file
from regraft_core.formats.options.ingest import IngestOptions
from regraft_core.images.prefetch import prefetch_map
from regraft_core.runtime.addresses import is_http, is_remote, redact
from regraft_core.runtime.errors import RegraftError

FILES_PER_CHUNK = 256
BYTES_PER_CHUNK = 16 << 20
"""Of images that are no files of their own; a chunk ends with the one that reaches it."""
REMOTE_READS = 16
"""Remote files that a worker reads at the same time."""
BYTES_PER_REMOTE_READ = 16 << 20
"""Larger remote files are read one at a time, which limits the memory."""
SPOOL_BYTES = 64 * 1024
"""Smaller images are kept in a spool file, because opening their files again takes longer."""


@dataclass(frozen=True)
class ChunkTask:
    """Files to read, each the tuple of a `LabeledFile`, and the folder of spool files."""

    files: list[tuple]
    spool: Path
    options: IngestOptions


@dataclass
class ChunkResult:
    """The valid images of a chunk, and its invalid files with path, reason and detail.

    Each image is the tuple of an `ImageRow`, which is sent to another process in half the time.
    """

    images: list[tuple]
    invalid: list[tuple[bytes, str, str]]
    repeated: int = 0
    """Requests to servers and buckets that had failed before."""


@dataclass(frozen=True)
class SplitRule:
    """How the split of an image follows from its content: the seed of its key, the thresholds."""

    seed: int
    ends: tuple[int, int]


def chunk_tasks(
    files: Iterable[LabeledFile], spool: Path, options: IngestOptions
) -> Iterator[ChunkTask]:
    """Yield the tasks of the workers for a stream of files."""
    chunk: list[tuple] = []
    size = 0
    for file in files:
        chunk.append(tuple(file))
        size += len(file.data or b"")
        if len(chunk) == FILES_PER_CHUNK or size >= BYTES_PER_CHUNK:
            yield ChunkTask(chunk, spool, options)
            chunk, size = [], 0
    if chunk:
        yield ChunkTask(chunk, spool, options)


def data_bytes(task: ChunkTask) -> int:
    """Return the bytes of the images that are in the task."""
    return sum(len(LabeledFile._make(file).data or b"") for file in task.files)


def read_chunk(task: ChunkTask) -> ChunkResult:
    """Read, decode and measure the files of one chunk; append the bytes to store to the spool."""
    options, result = task.options, ChunkResult([], [])
    with_hash = options.near_duplicates != "off"
    small: list[tuple[LabeledFile, bytes, PlainPng]] = []
    ends = thresholds(options.validation_fraction, options.test_fraction)
    rule = SplitRule(options.seed, ends)
    crops = CropReader(options.max_pixels)
    number = _process_number()
    with (
        warnings.catch_warnings(),
        open(task.spool / str(number), "ab") as opened,
        PartReader() as parts,
    ):
        # Pillow warns about unusual EXIF data and palettes, which do not make an image invalid.
        warnings.simplefilter("ignore")
        spool = SpoolWriter(number, opened, opened.tell())
        source = _FileReader(options, parts)
        for file, read in source.each([LabeledFile._make(file) for file in task.files]):
            try:
                data = read()
                if file.crop:
                    result.images.append(_cropped_row(file, data, crops, spool, rule, options))
                    continue
                png = unpack_small(
                    data, max_side_px=MIN_HASHED_SIDE_PX - 1, max_pixels=options.max_pixels
                )
                if png:
                    small.append((file, data, png))
                    continue
                stats = validate_image(data, max_pixels=options.max_pixels, with_hash=with_hash)
            except InvalidImageError as error:
                result.invalid.append((os.fsencode(file.path), error.reason, error.detail))
                continue
            result.images.append(_image_row(file, data, stats, spool, rule))
        measured = measure_small_images([png for *_, png in small], with_hash=with_hash)
        for (file, data, _), stats in zip(small, measured, strict=True):
            result.images.append(_image_row(file, data, stats, spool, rule))
        result.repeated = source.repeated
    return result


def _process_number() -> int:
    """Return the number of this process among those of all machines, of at most 63 bits.

    Each has one spool file, so that readers need not open many.
    """
    name = f"{socket.gethostname()} {os.getpid()}".encode()
    return int.from_bytes(hashlib.sha256(name).digest()[:8], "big") >> 1


class _FileReader:
    """Reads the content of files; counts requests that are repeated."""

    def __init__(self, options: IngestOptions, parts: PartReader) -> None:
        self._options, self._parts = options, parts
        self.repeated = 0
        self._lock = threading.Lock()

    def each(
        self, files: Sequence[LabeledFile]
    ) -> Iterator[tuple[LabeledFile, Callable[[], bytes]]]:
        """Yield each file with a function that returns its content, or raises why there is none.

        Remote files are read by several threads, which mostly wait for their servers. Large ones
        are read when their content is requested.
        """
        if any(is_remote(file.file) for file in files) and all(file.size is None for file in files):
            yield from zip(files, prefetch_map(self._outcome, files, REMOTE_READS), strict=True)
            return
        for file in files:
            yield file, partial(self._read, file, MAX_IMAGE_BYTES)

    def _outcome(self, file: LabeledFile) -> Callable[[], bytes]:
        outcome: Future[bytes] = Future()
        try:
            outcome.set_result(self._read(file, BYTES_PER_REMOTE_READ))
        except DownloadSizeError:
            return partial(self._read, file, MAX_IMAGE_BYTES)
        except RegraftError as error:
            outcome.set_exception(error)
        return outcome.result

    def _read(self, file: LabeledFile, limit_bytes: int) -> bytes:
        """Return the content of a file, of at most `limit_bytes` if it is remote.

        Raises:
            InvalidImageError: it cannot be read.
            DownloadSizeError: it exceeds a limit below `MAX_IMAGE_BYTES`.
            UnreachableError: a bucket fails.
        """
        if file.problem:
            raise InvalidImageError("invalid-row", file.problem)
        if file.data is not None:
            return file.data
        if file.size is not None:
            return self._parts.read(file.file, file.start, file.size)
        if not is_remote(file.file):
            return read_file(file.file)
        try:
            return read_url(file.file, self._options, limit_bytes, file.table, self._count_repeated)
        except FetchError as error:
            if isinstance(error, DownloadSizeError) and limit_bytes < MAX_IMAGE_BYTES:
                raise
            if isinstance(error, UnreachableError) and not is_http(file.file):
                # A bucket that fails would otherwise become a dataset of a part of its images.
                raise UnreachableError(f"{redact(file.file)}: {error}") from error
            raise InvalidImageError("unreadable", str(error)) from error

    def _count_repeated(self) -> None:
        with self._lock:
            self.repeated += 1


def _cropped_row(
    file: LabeledFile, data: bytes, crops: CropReader, spool: SpoolWriter, rule: SplitRule,
    options: IngestOptions,
) -> tuple:  # fmt: skip
    """Describe a box of an image for the catalog; spool it.

    The boxes of an image are in one split, because their key is that of the image. The identity of
    each is made from the image's bytes and the box, so it does not depend on how a PNG is written.

    Raises:
        InvalidImageError: as `CropReader.cut`.
    """
    assert file.crop
    part, clipped = crops.cut(data, file.crop)
    with_hash = options.near_duplicates != "off"
    stats = validate_image(part, max_pixels=options.max_pixels, with_hash=with_hash)
    whole = hashlib.sha256(data).digest()
    identity = hashlib.sha256(whole + repr(tuple(file.crop[:4])).encode()).digest()
    if clipped:
        stats = stats._replace(conversions=(*stats.conversions, CLIPPED))
    return _row(file._replace(file=""), part, stats, spool, rule, identity, whole)


def _image_row(
    file: LabeledFile, data: bytes, stats: ImageStats, spool: SpoolWriter, rule: SplitRule
) -> tuple:
    """Describe a valid image for the catalog; spool its bytes if it is small or not a file."""
    identity = hashlib.sha256(data).digest()
    return _row(file, data, stats, spool, rule, identity, identity)


def _row(
    file: LabeledFile, data: bytes, stats: ImageStats, spool: SpoolWriter, rule: SplitRule,
    identity: bytes, content: bytes,
) -> tuple:  # fmt: skip
    """Describe an image whose split follows from its group or, without one, from `content`.

    Returns:
        The tuple of an `ImageRow`, because making one takes longer than hashing the bytes.
    """
    stored = data if stats.encoded is None else stats.encoded
    start, spool_number, source = file.start, -1, file.file
    is_file = bool(source) and file.data is None and not is_remote(source)
    if stats.encoded is not None or len(data) <= SPOOL_BYTES or not is_file:
        start, spool_number, source = spool.append(stored), spool.number, ""
    key = split_key(b"group " + os.fsencode(file.group) if file.group else content, rule.seed)
    signed_hash = stats.hash64 - (1 << 64) if stats.hash64 >> 63 else stats.hash64
    return (
        identity, key, os.fsencode(file.path), os.fsencode(source),
        file.label, file.split, spool_number, start, len(stored),
        stats.width, stats.height, ",".join(stats.conversions), ",".join(stats.notes),
        signed_hash, stats.thumbnail or None, file.split or split_of(key, rule.ends),
        json.dumps(file.slices) if file.slices else "",
    )  # fmt: skip
