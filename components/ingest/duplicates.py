"""Pictures that are there twice, and what is done so that none leaks from one split to another.

Exact copies have the same SHA-256. Near copies (saved again, resized, slightly brightened) are
searched by a 64-bit perceptual hash and confirmed by the pixels of a 32 x 32 grey version, as
unlike pictures of simple things often share a hash: of scikit-learn's digits, more than a thousand
pairs are within 8 bits, and no two are copies. Pictures too small or too flat for such a hash
count as copies only when their pixels are equal.

Confirmed pairs are joined to groups, closest first. A group is kept below a size limit, so that a
chain of like pictures never swallows a class; pairs that would exceed it are reported.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain

import numpy as np

from components.core.errors import DataError
from components.core.options import IngestOptions
from components.ingest.catalog import Catalog
from components.ingest.look import LOOK_PX

HASH_DISTANCE = 4
MEAN_LEVELS = 4.0
"""Mean absolute difference (0 .. 255) up to which two 32 x 32 versions are the same picture."""
MAX_LEVELS = 48.0
"""Largest difference of one of their pixels; unlike pictures differ more somewhere."""
BRIGHTNESS_LEVELS = 24.0
WINDOW = 256
"""A picture is compared with so many neighbours in a bucket of like hashes, to stay bounded."""
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
    sets = list(catalog.ask("SELECT id FROM pictures GROUP BY id HAVING count(*) > 1 ORDER BY id"))
    dropped: list[tuple[bytes, str, str]] = []
    numbers: list[tuple[int]] = []
    crossing = 0
    for (identity,) in sets:
        copies = list(
            catalog.ask(
                "SELECT number, path, label, given FROM pictures WHERE id = ?"
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
    catalog.change("DELETE FROM pictures WHERE number = ?", numbers)
    found.counts["exact_sets"] = len(sets)
    found.counts["exact_dropped"] = len(dropped)
    return crossing


def near_pairs(catalog: Catalog) -> list[tuple[float, int, int]]:
    """Return the confirmed near copies: difference and two picture numbers, closest first.

    The order depends on content only: by difference, then by the ids.
    """
    rows = catalog.ask("SELECT number, hash64, thumb IS NULL FROM pictures ORDER BY number")
    columns = np.fromiter(chain.from_iterable(rows), dtype=np.int64).reshape(-1, 3)
    # Ordered by the index alone, as rows in the order of ids lie scattered over the table.
    by_id = catalog.ask("SELECT number FROM pictures ORDER BY id")
    numbers = np.fromiter(chain.from_iterable(by_id), dtype=np.int64)
    columns = columns[np.searchsorted(columns[:, 0], numbers)]
    hashes = columns[:, 1].astype(np.uint64)
    pixels_only = columns[:, 2] == 1
    pairs = [(0.0, first, second) for first, second in _equal(hashes, np.flatnonzero(pixels_only))]
    thumbs = _Thumbs(catalog)
    for first, second in candidates(hashes, np.flatnonzero(~pixels_only)):
        one, other = thumbs.of(int(numbers[first])), thumbs.of(int(numbers[second]))
        distance = difference(one, other)
        if distance is not None:
            pairs.append((distance, first, second))
    pairs.sort()
    return [(distance, int(numbers[a]), int(numbers[b])) for distance, a, b in pairs]


def _equal(hashes: np.ndarray, rows: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield each row with the first one of the same hash (equal pixels)."""
    if not len(rows):
        return
    order = rows[np.argsort(hashes[rows], kind="stable")]
    same = np.flatnonzero(hashes[order[1:]] == hashes[order[:-1]])
    for position in same:
        yield int(order[position]), int(order[position + 1])


def candidates(hashes: np.ndarray, rows: np.ndarray) -> list[tuple[int, int]]:
    """Return the pairs of rows whose hashes differ in at most `HASH_DISTANCE` bits.

    The bits are cut into one band more than may differ, so such a pair agrees in a whole band;
    only pictures that agree in one are compared.

    Args:
        hashes: uint64 [n].
        rows: indices into `hashes` to consider, ascending.
    """
    bands = np.array_split(np.arange(64, dtype=np.uint64), HASH_DISTANCE + 1)
    found: set[tuple[int, int]] = set()
    for band in bands:
        low, width = band[0], np.uint64(len(band))
        keys = (hashes[rows] >> low) & ((np.uint64(1) << width) - np.uint64(1))
        order = np.lexsort((hashes[rows], keys))
        keys, members = keys[order], rows[order]
        for step in range(1, min(WINDOW, len(rows) - 1) + 1):
            same = keys[step:] == keys[:-step]
            if not same.any():
                break
            first, second = members[:-step][same], members[step:][same]
            near = np.bitwise_count(hashes[first] ^ hashes[second]) <= HASH_DISTANCE
            for a, b in zip(first[near].tolist(), second[near].tolist(), strict=True):
                found.add((min(a, b), max(a, b)))
    return sorted(found)


def difference(one: np.ndarray, other: np.ndarray) -> float | None:
    """Return how far two versions differ (mean levels), None if they are not the same picture.

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
    """The small versions of the pictures last asked for."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._kept: dict[int, np.ndarray] = {}

    def of(self, number: int) -> np.ndarray:
        """Return float32 [1024], 0 .. 255."""
        if number not in self._kept:
            if len(self._kept) >= 1024:
                self._kept.pop(next(iter(self._kept)))
            rows = self._catalog.ask("SELECT thumb FROM pictures WHERE number = ?", (number,))
            pixels = np.frombuffer(next(rows)[0], dtype=np.uint8, count=LOOK_PX * LOOK_PX)
            self._kept[number] = pixels.astype(np.float32)
        return self._kept[number]


def _warn_of_labels(
    catalog: Catalog, pairs: list[tuple[float, int, int]], found: Duplicates
) -> None:
    unlike = []
    for _, first, second in pairs:
        rows = list(
            catalog.ask("SELECT label, path FROM pictures WHERE number IN (?,?)", (first, second))
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
    """Give the members of a group one key: the lowest, so that a test picture stays in test."""
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
            size[key] = next(catalog.ask("SELECT count(*) FROM pictures WHERE key = ?", (key,)))[0]
        return size[key]

    left = 0
    for _, first, second in pairs:
        keys = catalog.ask("SELECT key FROM pictures WHERE number IN (?,?)", (first, second))
        roots = sorted({root(key) for (key,) in keys})
        if len(roots) < 2:
            continue
        total = size_of(roots[0]) + size_of(roots[1])
        if total > limit:
            left += 1
            continue
        parent[roots[1]], size[roots[0]] = roots[0], total
    moved = [(root(key), key) for key in list(parent) if root(key) != key]
    catalog.change("UPDATE pictures SET key = ? WHERE key = ?", moved)
    found.counts["near_groups"] = len({target for target, _ in moved})
    found.counts["near_grouped"] = sum(size[target] for target in {t for t, _ in moved})
    found.counts["near_left"] = left
    if left:
        found.warnings.append(
            f"{left} near-duplicate pairs were left apart, as their groups would exceed {limit} "
            "pictures; they may lie in two splits"
        )


def _repair(catalog: Catalog, options: IngestOptions, found: Duplicates, crossing: int) -> None:
    """See that no group lies in two given splits: by default only the test (or last) part stays."""
    units = list(
        catalog.ask(
            # The inner question is answered by the index alone.
            "SELECT key FROM pictures WHERE key IN"
            " (SELECT key FROM pictures GROUP BY key HAVING count(*) > 1)"
            " GROUP BY key HAVING max(given) <> min(given) ORDER BY key"
        )
    )
    dropped, numbers, given = [], [], []
    for (key,) in units:
        members = list(
            catalog.ask(
                "SELECT number, path, given FROM pictures WHERE key = ?"
                " ORDER BY priority DESC, path",
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
    catalog.change("UPDATE pictures SET given = ? WHERE number = ?", given)
    if options.leakage == "repair":
        catalog.quarantine(dropped)
        catalog.change("DELETE FROM pictures WHERE number = ?", numbers)
    found.counts["leaking_dropped"] = len(numbers) if options.leakage == "repair" else 0


def _text(path: bytes) -> str:
    return path.decode("utf-8", "replace")
