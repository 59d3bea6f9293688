"""Near duplicates in several splits of the source: which of them are copies.

A copy is dropped from all splits except that of the image it is similar to. But images of one
scene, as a fixed camera or a microscope takes them, are as similar as copies, and dropping them
would take most of a class. So near duplicates are dropped only if few images are similar; images
whose pixels are equal are always copies.
"""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from components.ingest.catalog import Catalog, Duplicate
from components.ingest.splits.near_duplicates import NearPair
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
    catalog: Catalog, pairs: Sequence[NearPair], limit: int, spool: Path | None
) -> Copies:
    """Return the copies among near duplicates in several splits of the source.

    Args:
        catalog: all images.
        pairs: the near duplicates, most similar first.
        limit: near duplicates that form a larger group, in any number of steps, show one scene.
        spool: the folder of spool files.
    """
    images = catalog.images({number for pair in pairs for number in pair[1:]})
    sizes = _group_sizes(pairs)
    certain: dict[int, Duplicate] = {}
    likely: dict[int, Duplicate] = {}
    similar: set[int] = set()
    pixels = _Pixels(catalog, spool)
    progress = ProgressReporter("ingest: pairs compared in two splits", len(pairs))
    for pair in pairs:
        progress.advance()
        low, high = sorted(
            (images[pair.first], images[pair.second]),
            key=lambda image: _PRIORITY.get(image.source_split, 0),
        )
        if not low.source_split or low.source_split == high.source_split:
            continue
        similar.add(low.number)
        if low.label != high.label:
            continue
        if pixels.are_equal(pair):
            certain.setdefault(low.number, high)
        elif sizes[low.number] <= limit:
            likely.setdefault(low.number, high)
    dropped = certain | {
        number: high
        for number, high in _few(catalog, images, likely).items()
        if number not in certain
    }
    found = Copies(kept=len(similar - set(dropped)))
    for number in sorted(dropped):
        high = dropped[number]
        what = "same pixels as" if number in certain else "similar to"
        detail = f"{what} {high.path.decode('utf-8', 'replace')} in {high.source_split}"
        found.excluded.append((images[number].path, "leakage", detail))
        found.numbers.append(number)
    return found


def _few(
    catalog: Catalog, images: dict[int, Duplicate], likely: dict[int, Duplicate]
) -> dict[int, Duplicate]:
    """Return the likely copies of the classes and splits in which few images have similar ones.

    Args:
        catalog: all images.
        images: those that have a near duplicate, in any split.
        likely: the images that may be copies, with the image that each is similar to.
    """
    similar = Counter((image.source_split, image.label) for image in images.values())
    totals: Counter[tuple[str, str]] = Counter()
    for split in {split for split, _ in similar}:
        counts = catalog.count_by_label(split)
        totals.update({(split, label): count for label, count in counts.items()})

    def is_small(count: int, total: int) -> bool:
        return count <= max(1, MAX_SIMILAR_FRACTION * total)

    few = {key for key, count in similar.items() if is_small(count, totals[key])}
    return {
        number: high
        for number, high in likely.items()
        if (images[number].source_split, images[number].label) in few
    }


def _group_sizes(pairs: Sequence[NearPair]) -> Counter[int]:
    """Return by number the size of the group that pairs connect an image to."""
    parent: dict[int, int] = {}

    def root(number: int) -> int:
        while parent.setdefault(number, number) != number:
            parent[number] = parent[parent[number]]
            number = parent[number]
        return number

    for _, first, second in pairs:
        parent[root(first)] = root(second)
    members = Counter(root(number) for number in list(parent))
    return Counter({number: members[root(number)] for number in list(parent)})


class _Pixels:
    """Compares the pixels of stored images; each is decoded once."""

    def __init__(self, catalog: Catalog, spool: Path | None) -> None:
        self._catalog, self._spool = catalog, spool
        self._digests: dict[int, bytes] = {}

    def are_equal(self, pair: NearPair) -> bool:
        """Return whether the pixels of a pair are equal; only then is its difference 0."""
        if pair.difference:
            return False
        thumbnails = [self._catalog.thumbnail(number) for number in pair[1:]]
        if thumbnails[0] is None:  # small and flat images are pairs if their pixels are equal
            return True
        if self._spool is None or thumbnails[0] != thumbnails[1]:
            return False
        return self._digest(pair.first) == self._digest(pair.second)

    def _digest(self, number: int) -> bytes:
        if number not in self._digests:
            assert self._spool is not None
            (stored,) = self._catalog.stored_pair((number, number))
            with StoredImageReader(self._spool) as reader:
                image = Image.open(io.BytesIO(reader.read(stored))).convert("RGB")
            size = b"%d %d" % image.size
            self._digests[number] = hashlib.blake2b(size + image.tobytes()).digest()
        return self._digests[number]
