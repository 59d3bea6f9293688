"""The rows that a head is fitted to: their scalings, folds and samples.

All rows of an image, which are its views, are in one fold, and in a sample or not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regraft_core.parallel.executor import Executor
from regraft_core.training.linear_head.linear_classifier import Scaling
from regraft_core.training.linear_head.row_blocks import Rows
from regraft_core.training.stored_part import StoredPart

Floats = NDArray[np.float64]
IN_MEMORY_BYTES = 2 << 30
"""Rows in memory as float32 up to this size, otherwise read and scaled again in each step."""
# Features whose variance is below this fraction of the mean are not scaled up any further.
VARIANCE_FLOOR = 1e-3


@dataclass(frozen=True)
class HeadRows:
    """Training rows: stored features in parts of [m, width], and labels and images int [n].

    With several labels an image, labels are uint8 [n, classes].

    `images` numbers the image of each row, or its group of near duplicates: their rows are never in
    two folds.
    `mean` and `variance` are those of the features, float32 [width]; `widths` those of the levels.
    The rows are view after view of all images. Rows that are too many for the memory are parts in
    files; with `executor`, its workers compute the sums over them.
    """

    parts: Sequence[Rows]
    labels: NDArray[Any]
    images: NDArray[np.int64]
    mean: NDArray[np.float32]
    variance: NDArray[np.float32]
    widths: Sequence[int]
    views: int = 1
    executor: Executor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        """Return the stored rows at sorted indices."""
        return np.concatenate([part[inside] for part, inside in self._inside(indices)])

    def subset(self, indices: NDArray[np.int64]) -> HeadRows:
        """Return the rows at sorted indices, scaled as all of them; those in files stay there."""
        parts: list[Rows] = [
            part.pick(inside) for part, inside in self._inside(indices)
            if isinstance(part, StoredPart)
        ]  # fmt: skip
        if len(parts) < len(self.parts):
            parts = [self.take(indices)]
        return replace(self, parts=parts, labels=self.labels[indices], images=self.images[indices])

    def _inside(self, indices: NDArray[np.int64]) -> Iterator[tuple[Rows, NDArray[np.int64]]]:
        """Yield each part, and which of its rows are at sorted indices."""
        ends = np.cumsum([len(part) for part in self.parts])
        for part, end in zip(self.parts, ends, strict=True):
            inside = indices[(indices >= end - len(part)) & (indices < end)]
            yield part, inside - (end - len(part))


def fits_in_memory(rows: int, width: int) -> bool:
    """Return whether so many rows are kept in memory as float32."""
    return 4 * rows * width <= IN_MEMORY_BYTES


def scalings(rows: HeadRows) -> dict[str, Scaling]:
    """Return the candidates: one scale for each level, and one for each feature.

    In both, all levels have the same mean square length, and the rows that of 1.
    """
    level: list[Floats] = []
    feature: list[Floats] = []
    first = 0
    for width in rows.widths:
        variance = rows.variance[first : first + width].astype(np.float64)
        floored = variance + VARIANCE_FLOOR * variance.mean()
        for factors, weights in ((level, np.ones(width)), (feature, 1.0 / (floored + 1e-30))):
            square = float((variance * weights).sum()) * len(rows.widths)
            factors.append(np.sqrt(weights / square) if square > 0 else np.zeros(width))
        first += width
    return {
        name: Scaling(rows.mean, np.concatenate(factors).astype(np.float32))
        for name, factors in (("level", level), ("feature", feature))
    }


def deal_folds(
    labels: NDArray[np.int32], images: NDArray[np.int64], folds: int, seed: int
) -> NDArray[np.int64]:
    """Return the fold of each row, [n]: each class is dealt to the folds, image by image."""
    distinct, first = np.unique(images, return_index=True)
    order = np.random.default_rng(seed).permutation(len(distinct))
    by_class = order[np.argsort(labels[first][order], kind="stable")]
    fold_of = np.empty(len(distinct), np.int64)
    fold_of[by_class] = np.arange(len(distinct)) % folds
    return fold_of[np.searchsorted(distinct, images)]


def sample_rows(images: NDArray[np.int64], limit: int, seed: int) -> NDArray[np.int64]:
    """Return the sorted indices of a sample of rows: as many whole images as the limit allows."""
    if len(images) <= limit:
        return np.arange(len(images))
    distinct = np.unique(images)
    count = max(limit * len(distinct) // len(images), 1)
    chosen = np.random.default_rng(seed).permutation(distinct)[:count]
    return np.flatnonzero(np.isin(images, chosen))


def scored_rows(labels: NDArray[np.int32], images: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return one row of each image whose class has others, without which none can predict it."""
    _, first = np.unique(images, return_index=True)
    counts = np.bincount(labels[first])
    return np.sort(first[counts[labels[first]] > 1])
