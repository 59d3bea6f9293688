"""The search for near duplicates: images saved again, resized, or slightly brighter.

Pairs are found by a 64-bit perceptual hash and confirmed by the pixels of a 32 x 32 gray version,
because dissimilar images of simple objects often share a hash: of scikit-learn's digits, more than
a thousand pairs are within 8 bits, and none is a duplicate. Images too small or too flat for such a
hash are duplicates only if their pixels are equal.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from components.ingest.catalog.catalog import Catalog
from components.ingest.catalog.columns import read_integers, read_numbers_by_id
from components.ingest.catalog.duplicates import thumbnail
from components.ingest.checks.image_stats import THUMBNAIL_PX
from regraft_core.images.gray_difference import difference
from regraft_core.runtime.step_reports import ProgressReporter

HASH_DISTANCE = 4
WINDOW = 256
"""Number of neighbors that an image is compared with in a bucket of hashes; bounds the time."""
NEAR_PAIR = np.dtype([("difference", np.float64), ("first", np.int64), ("second", np.int64)])
"""Two near duplicates: their difference and their numbers in the catalog."""
_BITS = 64
_BLOCK = 1 << 14
"""Hashes that are compared at once: few enough for the cache of a core."""


def find_near_pairs(catalog: Catalog) -> NDArray[np.void]:
    """Return the confirmed near duplicates, most similar first: `NEAR_PAIR` [pairs].

    The order depends on content only: it is by difference, then by the ids.
    """
    numbers = read_numbers_by_id(catalog)
    hashes, has_thumbnail = _hashes(catalog, numbers)
    alone = np.flatnonzero(~has_thumbnail)
    alone = alone[np.argsort(hashes[alone], kind="stable")]
    equal = np.flatnonzero(hashes[alone[1:]] == hashes[alone[:-1]])
    with_thumbnail = np.flatnonzero(has_thumbnail)
    compared = with_thumbnail[candidates(hashes[with_thumbnail].view(np.uint64))]
    differences = _differences(catalog, numbers[compared])
    near = ~np.isnan(differences)
    positions = np.concatenate([np.stack([alone[equal], alone[equal + 1]], axis=1), compared[near]])
    pairs = np.zeros(len(positions), NEAR_PAIR)
    pairs["difference"][len(equal) :] = differences[near]
    pairs["first"], pairs["second"] = numbers[positions].T
    return pairs[np.lexsort((positions[:, 1], positions[:, 0], pairs["difference"]))]


def candidates(hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return the pairs of positions whose hashes differ in at most `HASH_DISTANCE` bits.

    The bits are divided into one band more than may differ, so that a pair agrees in one band at
    least; only images that agree in one are compared. In a band, they are sorted by its bits and
    then by the others, and each is compared with the `WINDOW` next ones.

    Args:
        hashes: uint64 [n].

    Returns:
        int64 [pairs, 2], sorted; the first position of a pair is the lower one.
    """
    bands = np.array_split(np.arange(_BITS), HASH_DISTANCE + 1)
    blocks = -(-len(hashes) // _BLOCK)
    progress = ProgressReporter("ingest: search for similar images, parts", len(bands) * blocks)
    images = max(len(hashes), 1)
    found = np.empty(0, np.int64)
    for band in bands:
        low, width = np.uint64(band[0]), np.uint64(len(band))
        in_band = (hashes >> low) & ((np.uint64(1) << width) - np.uint64(1))
        order = _band_order(hashes, in_band, low, width)
        keys, ordered = in_band[order].astype(np.int64), hashes[order]
        sizes = np.bincount(keys, minlength=1 << len(band))
        pairs = [found]
        for start in range(0, len(hashes), _BLOCK):
            last = min(start + _BLOCK, len(hashes)) - 1
            reach = min(WINDOW, int(sizes[keys[start] : keys[last] + 1].max()) - 1)
            near = start + _near_in_block(
                ordered[start : last + 1 + reach], last + 1 - start, reach
            )
            near = near[keys[near[:, 0]] == keys[near[:, 1]]]
            first, second = np.sort(order[near], axis=1).T
            pairs.append(first * images + second)
            progress.advance()
        # Most pairs agree in several bands.
        found = np.unique(np.concatenate(pairs))
    return np.stack(np.divmod(found, images), axis=1)


def _band_order(
    hashes: NDArray[np.uint64], in_band: NDArray[np.uint64], low: np.uint64, width: np.uint64
) -> NDArray[np.int64]:
    """Return the positions of hashes in the order of their bits in a band, then of the others."""
    below = hashes & ((np.uint64(1) << low) - np.uint64(1))
    # NumPy shifts by all 64 bits to 0.
    above = (hashes >> (low + width)) << low
    return np.argsort((in_band << (np.uint64(_BITS) - width)) | above | below, kind="stable")


def _near_in_block(hashes: NDArray[np.uint64], count: int, reach: int) -> NDArray[np.int64]:
    """Return the pairs of near hashes: one of the first `count`, and one of the `reach` next.

    Returns:
        int64 [pairs, 2], positions in `hashes`.
    """
    found = [np.empty((0, 2), np.int64)]
    for step in range(1, reach + 1):
        first = hashes[: min(count, len(hashes) - step)]
        bits = np.bitwise_count(first ^ hashes[step : step + len(first)])
        near = np.flatnonzero(bits <= HASH_DISTANCE)
        if len(near):
            found.append(np.stack([near, near + step], axis=1))
    return np.concatenate(found)


def _hashes(
    catalog: Catalog, numbers: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the hashes of images by number, and whether each has a thumbnail."""
    rows = np.searchsorted(read_integers(catalog, "number"), numbers)
    hashes = read_integers(catalog, "hash64")[rows]
    return hashes, read_integers(catalog, "has_thumbnail")[rows] == 1


def _differences(catalog: Catalog, pairs: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the differences (float64 [n]) of pairs of numbers; NaN if they are other images."""
    thumbnails = _ThumbnailCache(catalog)
    progress = ProgressReporter("ingest: pairs of similar images compared", len(pairs))
    found = np.full(len(pairs), np.nan)
    for position, (first, second) in enumerate(pairs):
        progress.advance()
        levels = difference(thumbnails.read(int(first)), thumbnails.read(int(second)))
        if levels is not None:
            found[position] = levels
    return found


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
            found = thumbnail(self._catalog, number)
            assert found is not None
            pixels = np.frombuffer(found, np.uint8, THUMBNAIL_PX * THUMBNAIL_PX)
            self._cached[number] = pixels.astype(np.float32)
        return self._cached[number]
