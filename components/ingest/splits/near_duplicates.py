"""The search for near duplicates: images saved again, resized, or slightly brighter.

Pairs are found by a 64-bit perceptual hash and confirmed by the pixels of a 32 x 32 gray version,
because dissimilar images of simple objects often share a hash: of scikit-learn's digits, more than
a thousand pairs are within 8 bits, and none is a duplicate. Images too small or too flat for such a
hash are duplicates only if their pixels are equal.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from components.ingest.catalog import Catalog
from components.ingest.checks.image_stats import THUMBNAIL_PX
from regraft_core.images.gray_difference import difference
from regraft_core.runtime.step_reports import ProgressReporter

HASH_DISTANCE = 4
WINDOW = 256
"""Number of neighbors that an image is compared with in a bucket of hashes; bounds the time."""


class NearPair(NamedTuple):
    """Two near duplicates: their difference and their numbers in the catalog."""

    difference: float
    first: int
    second: int


def find_near_pairs(catalog: Catalog) -> list[NearPair]:
    """Return the confirmed near duplicates, most similar first.

    The order depends on content only: it is by difference, then by the ids.
    """
    neighbors = pairwise(catalog.pixel_hashes())
    pairs = [NearPair(0.0, a, b) for (one, a), (other, b) in neighbors if one == other]
    table = catalog.perceptual_hashes()
    thumbnails = _ThumbnailCache(catalog)
    compared = candidates(table[:, 1].astype(np.uint64))
    progress = ProgressReporter("ingest: pairs of similar images compared", len(compared))
    for first, second in compared:
        progress.advance()
        numbers = int(table[first, 0]), int(table[second, 0])
        levels = difference(thumbnails.read(numbers[0]), thumbnails.read(numbers[1]))
        if levels is not None:
            pairs.append(NearPair(levels, *numbers))
    ids = catalog.ids({number for pair in pairs for number in pair[1:]})
    return sorted(pairs, key=lambda pair: (pair.difference, ids[pair.first], ids[pair.second]))


def candidates(hashes: np.ndarray) -> list[tuple[int, int]]:
    """Return the pairs of positions whose hashes differ in at most `HASH_DISTANCE` bits.

    The bits are divided into one band more than may differ, so that a pair agrees in one band at
    least; only images that agree in one are compared.

    Args:
        hashes: uint64 [n].
    """
    bands = np.array_split(np.arange(64, dtype=np.uint64), HASH_DISTANCE + 1)
    found: set[tuple[int, int]] = set()
    progress = ProgressReporter(
        "ingest: steps of the search for similar images", len(bands) * WINDOW
    )
    for number, band in enumerate(bands, 1):
        low, width = band[0], np.uint64(len(band))
        keys = (hashes >> low) & ((np.uint64(1) << width) - np.uint64(1))
        members = np.lexsort((hashes, keys))
        keys = keys[members]
        for step in range(1, WINDOW + 1):
            same = keys[step:] == keys[:-step]
            if not same.any():
                break
            first, second = members[:-step][same], members[step:][same]
            near = np.bitwise_count(hashes[first] ^ hashes[second]) <= HASH_DISTANCE
            for a, b in zip(first[near].tolist(), second[near].tolist(), strict=True):
                found.add((min(a, b), max(a, b)))
            progress.advance()
        progress(number * WINDOW)
    return sorted(found)


class _ThumbnailCache:
    """The gray versions of the images read last."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._cached: dict[int, np.ndarray] = {}

    def read(self, number: int) -> np.ndarray:
        """Return float32 [1024], 0 .. 255."""
        if number not in self._cached:
            if len(self._cached) >= 1024:
                self._cached.pop(next(iter(self._cached)))
            thumbnail = self._catalog.thumbnail(number)
            assert thumbnail is not None
            pixels = np.frombuffer(thumbnail, np.uint8, THUMBNAIL_PX * THUMBNAIL_PX)
            self._cached[number] = pixels.astype(np.float32)
        return self._cached[number]
