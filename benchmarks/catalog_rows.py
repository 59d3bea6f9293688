"""Synthetic rows of the catalog: what ingest knows of an image, without the image."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from components.ingest.catalog.rows import ImageRow
from components.ingest.checks.image_stats import THUMBNAIL_PX
from components.ingest.splits.split_keys import split_key, split_of, thresholds

BLOCK = 10_000
COPIES, NEAR, CLASSES = 0.01, 0.01, 10
GROUPED, GROUP_IMAGES = 0.05, 5
_PIXELS = THUMBNAIL_PX * THUMBNAIL_PX


def synthetic_rows(count: int, seed: int = 0) -> Iterator[ImageRow]:
    """Yield rows of `count` images in 10 classes: copies, near duplicates and groups among them.

    1% of the images are exact copies of another image of their block of 10,000. 1% are near
    duplicates: up to 3 other bits of the hash, and pixels that differ by at most 2 levels. 5% are
    in groups of 5 images. All images have a thumbnail, as those of at least 40 px have.
    """
    random = np.random.default_rng(seed)
    ends = thresholds(0.15, 0.15)
    for start in range(0, count, BLOCK):
        size = min(BLOCK, count - start)
        ids = random.integers(0, 256, (size, 32), np.uint8)
        hashes = random.integers(0, 1 << 64, size, np.uint64)
        thumbnails = random.integers(0, 256, (size, _PIXELS), np.uint8)
        labels = random.integers(0, CLASSES, size)
        group = np.full(size, -1)
        group[: int(GROUPED * size)] = np.arange(int(GROUPED * size)) // GROUP_IMAGES
        changed = random.permutation(np.arange(size // 2, size))
        originals = random.permutation(size // 2)
        copies, near = np.split(changed[: int((COPIES + NEAR) * size)], [int(COPIES * size)])
        _copy((ids, hashes, thumbnails, labels), originals[: len(copies)], copies)
        _copy((hashes, thumbnails, labels), originals[-len(near) :], near)
        for _ in range(3):
            hashes[near] ^= np.uint64(1) << random.integers(0, 64, len(near), np.uint64)
        noise = random.integers(-2, 3, (len(near), _PIXELS))
        thumbnails[near] = np.clip(thumbnails[near] + noise, 0, 255)
        for row in range(size):
            number = start + row
            identity = ids[row].tobytes()
            in_group = group[row] >= 0
            key = split_key(b"group %d %d" % (start, group[row]) if in_group else identity, seed)
            yield ImageRow(
                id=identity, key=key, path=b"images/%02d/%010d.jpg" % (labels[row], number),
                file=b"", label=f"class {labels[row]}", source_split="", spool=number % 2,
                start=40_000 * (number // 2), length=40_000, width=640, height=480,
                conversions="", notes="", hash64=int(hashes[row].astype(np.int64)),
                thumbnail=thumbnails[row].tobytes(), split=split_of(key, ends),
            )  # fmt: skip


def _copy(columns: tuple[np.ndarray, ...], sources: np.ndarray, targets: np.ndarray) -> None:
    for column in columns:
        column[targets] = column[sources]
