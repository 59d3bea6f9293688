"""Images that are there twice, and what is done so that none leaks from one split to another.

Exact copies have the same SHA-256. Near copies (saved again, resized, slightly brightened) are
searched by a 64-bit perceptual hash and confirmed by the pixels of a 32 x 32 gray version, as
unlike images of simple things often share a hash: of scikit-learn's digits, more than a thousand
pairs are within 8 bits, and no two are copies. Images too small or too flat for such a hash
count as copies only when their pixels are equal.

Confirmed pairs are joined to groups, closest first. A group is kept below a size limit, so that a
chain of like images never swallows a class; pairs that would exceed it are reported.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from itertools import chain, pairwise

import numpy as np

from components.ingest.catalog import Catalog
from components.ingest.checks.image_stats import LOOK_PX
from regraft_core.formats.options import IngestOptions
from regraft_core.runtime.errors import DataError

HASH_DISTANCE = 4
MEAN_LEVELS = 4.0
"""Mean absolute difference (0 .. 255) up to which two 32 x 32 versions are the same image."""
MAX_LEVELS = 48.0
"""Largest difference of one of their pixels; unlike images differ more somewhere."""
BRIGHTNESS_LEVELS = 24.0
WINDOW = 256
"""An image is compared with so many neighbors in a bucket of like hashes, to stay bounded."""
GROUP_SHARE, GROUP_FLOOR = 0.01, 16
EXAMPLES = 24


@dataclass
class Duplicates:
    """What was found and done: counts for the manifest, examples for the data card."""

    counts: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    examples: list[tuple[int, int]] = field(default_factory=list)


def resolve_duplicates(catalog: Catalog, options: IngestOptions) -> Duplicates:
    """Drop exact copies, quarantine conflicting labels, group near copies, repair leakage.

    Raises:
        DataError: copies cross given splits and `options.leakage` is `fail`.
    """
    found = Duplicates()
    crossing = _resolve_exact(catalog, found)
    if options.near_duplicates != "off":
        pairs = near_pairs(catalog)
        found.examples = [(a, b) for _, a, b in pairs[:EXAMPLES]]
        found.counts["near_pairs"] = len(pairs)
        _warn_of_labels(catalog, pairs, found)
        if options.near_duplicates == "group":
            _join(catalog, pairs, found)
    _repair(catalog, options, found, crossing)
    return found


def _resolve_exact(catalog: Catalog, found: Duplicates) -> int:
    """Keep one of each set of equal files; return how many sets cross given splits."""
    sets = list(catalog.ask("SELECT id FROM images GROUP BY id HAVING count(*) > 1 ORDER BY id"))
    dropped: list[tuple[bytes, str, str]] = []
    numbers: list[tuple[int]] = []
    crossing = 0
    for (identity,) in sets:
        copies = list(
            catalog.ask(
                "SELECT number, path, label, given FROM images WHERE id = ?"
                " ORDER BY priority DESC, path",
                (identity,),
            )
        )
        labels = sorted({label for _, _, label, _ in copies})
        crossing += len({given for _, _, _, given in copies if given}) > 1
        keep = copies[0][1]
        for number, path, _, given in copies if len(labels) > 1 else copies[1:]:
            if len(labels) > 1:
                row = (path, "label-conflict", f"same bytes under {' and '.join(labels)}")
            elif given != copies[0][3]:
                row = (path, "leakage", f"same bytes as {_text(keep)} in {copies[0][3]}")
            else:
                row = (path, "exact-duplicate", f"same bytes as {_text(keep)}")
            dropped.append(row)
            numbers.append((number,))
    catalog.quarantine(dropped)
    catalog.change("DELETE FROM images WHERE number = ?", numbers)
    found.counts["exact_sets"] = len(sets)
    found.counts["exact_dropped"] = len(dropped)
    return crossing


def near_pairs(catalog: Catalog) -> list[tuple[float, int, int]]:
    """Return the confirmed near copies: difference and two image numbers, closest first.

    The order depends on content only: by difference, then by the ids.
    """
    pairs = [(0.0, *pair) for pair in _equal_pixels(catalog)]
    columns = "SELECT number, hash64 FROM images WHERE thumb IS NOT NULL ORDER BY id"
    table = np.fromiter(chain.from_iterable(catalog.ask(columns)), dtype=np.int64).reshape(-1, 2)
    thumbs = _Thumbs(catalog)
    for first, second in candidates(table[:, 1].astype(np.uint64)):
        numbers = int(table[first, 0]), int(table[second, 0])
        distance = difference(thumbs.of(numbers[0]), thumbs.of(numbers[1]))
        if distance is not None:
            pairs.append((distance, *numbers))
    place = _places(catalog, {number for _, *pair in pairs for number in pair})
    return sorted(pairs, key=lambda pair: (pair[0], place[pair[1]], place[pair[2]]))


def _equal_pixels(catalog: Catalog) -> list[tuple[int, int]]:
    """Return pairs of images too small or too flat to compare otherwise, neighbors by id."""
    rows = catalog.ask(
        "SELECT hash64, number FROM images WHERE thumb IS NULL AND hash64 IN"
        " (SELECT hash64 FROM images WHERE thumb IS NULL GROUP BY 1 HAVING count(*) > 1)"
        " ORDER BY hash64, id"
    )
    neighbors = pairwise(rows)
    return [(first, second) for (one, first), (other, second) in neighbors if one == other]


def _places(catalog: Catalog, numbers: set[int]) -> dict[int, bytes]:
    """Return the ids of some images, which do not depend on the order of reading."""
    asked = "SELECT number, id FROM images WHERE number IN (SELECT value FROM json_each(?))"
    return dict(catalog.ask(asked, (json.dumps(sorted(numbers)),)))


def candidates(hashes: np.ndarray) -> list[tuple[int, int]]:
    """Return the pairs of places whose hashes differ in at most `HASH_DISTANCE` bits.

    The bits are cut into one band more than may differ, so such a pair agrees in a whole band;
    only images that agree in one are compared.

    Args:
        hashes: uint64 [n].
    """
    bands = np.array_split(np.arange(64, dtype=np.uint64), HASH_DISTANCE + 1)
    found: set[tuple[int, int]] = set()
    for band in bands:
        low, width = band[0], np.uint64(len(band))
        keys = (hashes >> low) & ((np.uint64(1) << width) - np.uint64(1))
        members = np.lexsort((hashes, keys))
        keys = keys[members]
        for step in range(1, min(WINDOW, len(hashes) - 1) + 1):
            same = keys[step:] == keys[:-step]
            if not same.any():
                break
            first, second = members[:-step][same], members[step:][same]
            near = np.bitwise_count(hashes[first] ^ hashes[second]) <= HASH_DISTANCE
            for a, b in zip(first[near].tolist(), second[near].tolist(), strict=True):
                found.add((min(a, b), max(a, b)))
    return sorted(found)


def difference(one: np.ndarray, other: np.ndarray) -> float | None:
    """Return how far two versions differ (mean levels), None if they are not the same image.

    Args:
        one, other: float32 [1024], 0 .. 255; a difference of brightness alone is forgiven.
    """
    shift = float(other.mean() - one.mean())
    if abs(shift) > BRIGHTNESS_LEVELS:
        return None
    apart = np.abs(other - one - shift)
    mean = float(apart.mean())
    return round(mean, 4) if mean <= MEAN_LEVELS and float(apart.max()) <= MAX_LEVELS else None


class _Thumbs:
    """The small versions of the images last asked for."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._kept: dict[int, np.ndarray] = {}

    def of(self, number: int) -> np.ndarray:
        """Return float32 [1024], 0 .. 255."""
        if number not in self._kept:
            if len(self._kept) >= 1024:
                self._kept.pop(next(iter(self._kept)))
            rows = self._catalog.ask("SELECT thumb FROM images WHERE number = ?", (number,))
            pixels = np.frombuffer(next(rows)[0], dtype=np.uint8, count=LOOK_PX * LOOK_PX)
            self._kept[number] = pixels.astype(np.float32)
        return self._kept[number]


def _warn_of_labels(
    catalog: Catalog, pairs: list[tuple[float, int, int]], found: Duplicates
) -> None:
    unlike = []
    for _, first, second in pairs:
        rows = list(
            catalog.ask("SELECT label, path FROM images WHERE number IN (?,?)", (first, second))
        )
        if rows[0][0] != rows[1][0]:
            unlike.append(rows)
    found.counts["near_under_two_classes"] = len(unlike)
    if unlike:
        (one, path), (other, other_path) = unlike[0]
        found.warnings.append(
            f"{len(unlike)} near-duplicate pairs have two labels, for instance "
            f"{_text(path)} ({one}) and {_text(other_path)} ({other})"
        )


def _join(catalog: Catalog, pairs: list[tuple[float, int, int]], found: Duplicates) -> None:
    """Give the members of a group one key: the lowest, so that a test image stays in test."""
    if pairs:
        catalog.index_keys()
    limit = max(GROUP_FLOOR, int(GROUP_SHARE * catalog.count()))
    parent: dict[int, int] = {}
    size: dict[int, int] = {}

    def root(key: int) -> int:
        while parent.setdefault(key, key) != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    def size_of(key: int) -> int:
        if key not in size:
            size[key] = next(catalog.ask("SELECT count(*) FROM images WHERE key = ?", (key,)))[0]
        return size[key]

    left = 0
    for _, first, second in pairs:
        keys = catalog.ask("SELECT key FROM images WHERE number IN (?,?)", (first, second))
        roots = sorted({root(key) for (key,) in keys})
        if len(roots) < 2:
            continue
        total = size_of(roots[0]) + size_of(roots[1])
        if total > limit:
            left += 1
            continue
        parent[roots[1]], size[roots[0]] = roots[0], total
    moved = [(root(key), key) for key in list(parent) if root(key) != key]
    catalog.change("UPDATE images SET key = ? WHERE key = ?", moved)
    found.counts["near_groups"] = len({target for target, _ in moved})
    found.counts["near_grouped"] = sum(size[target] for target in {t for t, _ in moved})
    found.counts["near_left"] = left
    if left:
        found.warnings.append(
            f"{left} near-duplicate pairs were left apart, as their groups would exceed {limit} "
            "images; they may lie in two splits"
        )


def _repair(catalog: Catalog, options: IngestOptions, found: Duplicates, crossing: int) -> None:
    """See that no group lies in two given splits: by default only the test (or last) part stays."""
    units: list[tuple[int]] = []
    if len(list(catalog.ask("SELECT DISTINCT given FROM images LIMIT 2"))) > 1:
        catalog.index_keys()
        # The inner question is answered by the index alone.
        repeated = "SELECT key FROM images GROUP BY key HAVING count(*) > 1"
        crossed = "HAVING max(given) <> min(given) ORDER BY key"
        question = f"SELECT key FROM images WHERE key IN ({repeated}) GROUP BY key {crossed}"  # noqa: S608
        units = list(catalog.ask(question))
    dropped, numbers, given = [], [], []
    for (key,) in units:
        members = list(
            catalog.ask(
                "SELECT number, path, given FROM images WHERE key = ? ORDER BY priority DESC, path",
                (key,),
            )
        )
        _, keep, split = members[0]
        crossing += len({own for _, _, own in members if own}) > 1
        for number, path, own in members:
            if not own:
                given.append((split, number))
            elif own != split:
                dropped.append((path, "leakage", f"like {_text(keep)} in {split}"))
                numbers.append((number,))
    found.counts["leaking"] = crossing
    if crossing:
        repaired = options.leakage == "repair"
        action = "dropped outside the test split" if repaired else "near ones stay where they are"
        text = f"{crossing} sets of duplicates lay in several of the given splits"
        if options.leakage == "fail":
            raise DataError(f"{text}; expected none (leakage: fail)")
        found.warnings.append(f"{text}; {action}")
    catalog.change("UPDATE images SET given = ? WHERE number = ?", given)
    if options.leakage == "repair":
        catalog.quarantine(dropped)
        catalog.change("DELETE FROM images WHERE number = ?", numbers)
    found.counts["leaking_dropped"] = len(numbers) if options.leakage == "repair" else 0


def _text(path: bytes) -> str:
    return path.decode("utf-8", "replace")
