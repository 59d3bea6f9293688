"""Which unlabeled images to label next: uncertain ones that differ from each other.

The uncertainty of an image is one minus the difference of its two highest probabilities (Scheffer,
Decomain and Wrobel, 2001), and with several labels that of its least certain label (Brinker, On
Active Learning in Multi-label Classification, 2006). Images are taken one by one, each time the one
with the highest product of uncertainty and distance to those taken before, which spreads them as
core sets are (Sener and Savarese, arXiv 1708.00489).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

# Images from which each one is taken: the most uncertain ones, this many times the wanted number,
# but no more than `MAX_POOL`, because their features are in memory.
POOL_FACTOR, MAX_POOL = 10, 10_000
# Of float16, in which features may be stored.
HIGHEST = 65504.0


def uncertainties(probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the uncertainty of each row of probabilities [n, classes], float [n], 0..1."""
    highest = np.sort(probabilities.astype(np.float64), axis=1)[:, ::-1]
    difference: NDArray[np.float64] = highest[:, 0] - highest[:, 1]
    return 1.0 - difference


def label_uncertainties(
    probabilities: NDArray[np.floating], thresholds: Sequence[float]
) -> NDArray[np.float64]:
    """Return the uncertainty of the least certain label of each image, float [n], 0..1.

    A label is certain at the probabilities 0 and 1, and most uncertain at its threshold.

    Args:
        probabilities: of the labels, [n, classes].
        thresholds: of the labels, [classes].
    """
    exact, limits = probabilities.astype(np.float64), np.array(thresholds)
    room = np.maximum(np.where(exact < limits, limits, 1.0 - limits), 1e-9)
    found: NDArray[np.float64] = (1.0 - np.abs(exact - limits) / room).max(axis=1)
    return found


class Candidate(NamedTuple):
    """An image that may be selected.

    Attributes:
        item: What the caller knows the image by.
        uncertainty: Of `uncertainties` or `label_uncertainties`.
        features: float [width].
        in_distribution: Whether it is.
    """

    item: Any
    uncertainty: float
    features: NDArray[np.floating]
    in_distribution: bool


class CandidatePool:
    """Of any number of images, those that `select_images` would take from; the others are let go.

    So memory depends on the wanted number of images only.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._candidates: list[Candidate] = []

    def add(self, candidates: Iterable[Candidate]) -> None:
        """Add images, in the order that decides between equally uncertain ones."""
        self._candidates += (one for one in candidates if np.isfinite(one.uncertainty))
        if len(self._candidates) > 3 * _pool_size(self._count):  # two groups remain
            self._shrink()

    def select(self) -> list[Any]:
        """Return the items of at most `count` images, the most useful first."""
        if not self._candidates:
            return []
        items, uncertain, features, known = zip(*self._candidates, strict=True)
        chosen = _select(np.array(uncertain), np.stack(features), np.array(known), self._count)
        return [items[k] for k in chosen]

    def _shrink(self) -> None:
        known = np.array([one.in_distribution for one in self._candidates])
        uncertain = np.array([one.uncertainty for one in self._candidates])
        kept: list[int] = []
        for group in (np.flatnonzero(known), np.flatnonzero(~known)):
            order = np.argsort(-uncertain[group], kind="stable")
            kept += group[order[: _pool_size(self._count)]].tolist()
        self._candidates = [self._candidates[k] for k in sorted(kept)]


def select_images(
    probabilities: NDArray[np.floating], features: NDArray[np.floating],
    in_distribution: NDArray[np.bool_], count: int,
) -> NDArray[np.int64]:  # fmt: skip
    """Return the indices of at most `count` images, the most useful first.

    Out-of-distribution images are taken only if there are too few others, and images with
    probabilities that are not finite never: they have no uncertainty.

    Args:
        probabilities: [n, classes].
        features: [n, width]; distances are Euclidean, between features of length 1.
        in_distribution: bool [n].
        count: number of images.
    """
    chosen = _select(uncertainties(probabilities), features, in_distribution, count)
    return np.array(chosen, np.int64)


def _select(
    uncertain: NDArray[np.float64], features: NDArray[np.floating],
    in_distribution: NDArray[np.bool_], count: int,
) -> list[int]:  # fmt: skip
    taken: list[int] = []
    finite = np.isfinite(uncertain)
    for group in map(np.flatnonzero, (finite & in_distribution, finite & ~in_distribution)):
        wanted = min(count - len(taken), len(group))
        order = np.argsort(-uncertain[group], kind="stable")
        pool = group[order[: _pool_size(wanted)]]
        points, before = _normalized(features[pool]), _normalized(features[taken])
        spread, left = np.ones(len(pool)), np.ones(len(pool), bool)
        for point in before:
            spread = np.minimum(spread, np.linalg.norm(points - point, axis=1))
        for _ in range(wanted):
            # If all that is left are copies, the most uncertain one.
            best = int(np.argmax(np.where(left, uncertain[pool] * (spread + 1e-9), -1.0)))
            taken.append(int(pool[best]))
            left[best] = False
            spread = np.minimum(spread, np.linalg.norm(points - points[best], axis=1))
    return taken


def _pool_size(count: int) -> int:
    return max(count, min(POOL_FACTOR * count, MAX_POOL))


def _normalized(features: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return features divided by their length, float32 [n, width]."""
    wide = np.nan_to_num(features.astype(np.float32), posinf=HIGHEST, neginf=-HIGHEST)
    return wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12)
