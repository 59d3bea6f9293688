"""Near duplicates in several splits of the source: which of them are copies.

A copy is dropped from all splits except that of the image it is similar to. But images of one
scene, as a fixed camera or a microscope takes them, are as similar as copies, and dropping them
would take most of a class. So near duplicates are dropped only if few images are similar; images
whose pixels are equal are always copies.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from components.ingest.catalog.assignments import source_splits
from components.ingest.catalog.catalog import Catalog
from components.ingest.catalog.columns import read_integers, read_words
from components.ingest.catalog.duplicates import image_with_number, thumbnail
from components.ingest.spool import StoredImageReader
from regraft_core.runtime.step_reports import ProgressReporter

MAX_SIMILAR_FRACTION = 0.2
"""If more images of a class in a split have a near duplicate, in any split, they show one scene."""
_PRIORITY = {"train": 1, "validation": 2, "test": 3}


@dataclass
class Copies:
    """The images to drop, with their rows of the quarantine; and the number of those kept."""

    excluded: list[tuple[bytes, str, str]] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    kept: int = 0


def find_copies(
    catalog: Catalog, pairs: NDArray[np.void], limit: int, spool: Path | None
) -> Copies:
    """Return the copies among near duplicates in several splits of the source.

    Args:
        catalog: all images.
        pairs: the near duplicates (`NEAR_PAIR`), most similar first.
        limit: near duplicates that form a larger group, in any number of steps, show one scene.
        spool: the folder of spool files.
    """
    if len(source_splits(catalog)) < 2 or not len(pairs):
        return Copies()
    numbers = read_integers(catalog, "number")
    splits, labels = read_words(catalog, "source_split"), read_words(catalog, "label")
    priority = np.array([_PRIORITY.get(name, 0) for name in splits.values])[splits.codes]
    first, second = (np.searchsorted(numbers, pairs[one]) for one in ("first", "second"))
    swapped = priority[first] > priority[second]
    low, high = np.where(swapped, second, first), np.where(swapped, first, second)
    crossing = np.flatnonzero((priority[low] > 0) & (splits.codes[low] != splits.codes[high]))
    same_label = labels.codes[low] == labels.codes[high]
    small_group = _group_sizes(first, second)[low] <= limit
    is_few = _is_few(splits.codes.astype(np.int64) * len(labels.values) + labels.codes, low, high)
    certain: dict[int, int] = {}
    likely: dict[int, int] = {}
    pixels = _Pixels(catalog, spool)
    progress = ProgressReporter("ingest: pairs compared in two splits", len(crossing))
    for pair in crossing:
        progress.advance()
        if not same_label[pair]:
            continue
        if pixels.are_equal(pairs[pair]):
            certain.setdefault(int(low[pair]), int(high[pair]))
        elif small_group[pair] and is_few[pair]:
            likely.setdefault(int(low[pair]), int(high[pair]))
    dropped = likely | certain
    found = Copies(kept=len(set(low[crossing].tolist()) - set(dropped)))
    for image in sorted(dropped):
        kept = image_with_number(catalog, int(numbers[dropped[image]]))
        what = "same pixels as" if image in certain else "similar to"
        detail = f"{what} {kept.path.decode('utf-8', 'replace')} in {kept.source_split}"
        number = int(numbers[image])
        found.excluded.append((image_with_number(catalog, number).path, "leakage", detail))
        found.numbers.append(number)
    return found


def _is_few(
    kinds: NDArray[np.int64], low: NDArray[np.int64], high: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Return for each pair whether few images of the kind of `low` have a near duplicate.

    Args:
        kinds: int64 [n], class and split of each image as one number.
        low, high: int64 [pairs], positions of the images of each pair.
    """
    totals = np.bincount(kinds)
    similar = np.bincount(kinds[np.unique([low, high])], minlength=len(totals))
    return (similar <= np.maximum(1, MAX_SIMILAR_FRACTION * totals))[kinds[low]]


def _group_sizes(first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return by position the size of the group that pairs connect an image to.

    Args:
        first, second: int64 [pairs], positions of the images of each pair.
    """
    images = int(max(first.max(), second.max())) + 1
    graph = coo_array((np.ones(len(first), np.int8), (first, second)), shape=(images, images))
    _, group = connected_components(graph, directed=False)
    return np.bincount(group)[group]


class _Pixels:
    """Compares the pixels of stored images; each is decoded once."""

    def __init__(self, catalog: Catalog, spool: Path | None) -> None:
        self._catalog, self._spool = catalog, spool
        self._digests: dict[int, bytes] = {}

    def are_equal(self, pair: np.void) -> bool:
        """Return whether the pixels of a pair are equal; only then is its difference 0."""
        if pair["difference"]:
            return False
        first, second = int(pair["first"]), int(pair["second"])
        thumbnails = [thumbnail(self._catalog, number) for number in (first, second)]
        if thumbnails[0] is None:  # small and flat images are pairs if their pixels are equal
            return True
        if self._spool is None or thumbnails[0] != thumbnails[1]:
            return False
        return self._digest(first) == self._digest(second)

    def _digest(self, number: int) -> bytes:
        if number not in self._digests:
            assert self._spool is not None
            (stored,) = self._catalog.stored_pair((number, number))
            with StoredImageReader(self._spool) as reader:
                image = Image.open(io.BytesIO(reader.read(stored))).convert("RGB")
            size = b"%d %d" % image.size
            self._digests[number] = hashlib.blake2b(size + image.tobytes()).digest()
        return self._digests[number]
