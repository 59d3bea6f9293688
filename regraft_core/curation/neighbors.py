"""The nearest images by features, and the images that are far from all others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from regraft_core.training.linear_head.head_rows import HeadRows, scalings
from regraft_core.training.linear_head.linear_problem import principal_axes

NEIGHBORS = 10
# Features are compared on this many principal axes, which are found from a sample of the rows; what
# the axes do not explain counts by its length.
MAX_AXES, SAMPLE_ROWS = 64, 3000
# Modified z-score from which a value is an outlier (Iglewicz and Hoaglin, 1993), and the factor
# that makes a median absolute deviation a standard deviation.
OUTLIER_SCORE, TO_DEVIATION = 3.5, 1.4826
_BLOCK_ROWS = 4096


@dataclass(frozen=True)
class Neighbors:
    """The nearest other images: distances float32 [n, k], the nearest first, and indices [n, k]."""

    distances: NDArray[np.float32]
    indices: NDArray[np.int64]


def find_neighbors(rows: HeadRows, seed: int = 0) -> Neighbors:
    """Return the nearest images of each row, all levels of features having the same weight."""
    from sklearn.neighbors import NearestNeighbors

    points = reduced_features(rows, seed)
    count = min(NEIGHBORS, len(points) - 1)
    search = NearestNeighbors(n_neighbors=max(count, 1), algorithm="brute").fit(points)
    distances, indices = search.kneighbors()
    return Neighbors(distances.astype(np.float32), indices.astype(np.int64))


def reduced_features(rows: HeadRows, seed: int = 0) -> NDArray[np.float32]:
    """Return the scaled features on principal axes, and the length of the rest, [n, axes + 1]."""
    scaling = scalings(rows)["level"]
    chosen = np.sort(np.random.default_rng(seed).permutation(len(rows))[:SAMPLE_ROWS])
    basis = principal_axes(scaling.apply(rows.take(chosen))).longest(MAX_AXES).basis
    found = []
    for part in rows.parts:
        for first in range(0, len(part), _BLOCK_ROWS):
            scaled = scaling.apply(part[first : first + _BLOCK_ROWS])
            inside = scaled @ basis
            rest = np.square(scaled).sum(axis=1) - np.square(inside).sum(axis=1)
            found.append(np.column_stack([inside, np.sqrt(np.maximum(rest, 0.0))]))
    return np.concatenate(found)


def outlier_scores(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return how far values [n] are above the median, in robust standard deviations.

    Values from `OUTLIER_SCORE` are outliers. If half of the values are equal, the mean absolute
    deviation replaces the median one.
    """
    from_median = values.astype(np.float64) - np.median(values)
    deviation = TO_DEVIATION * np.median(np.abs(from_median)) or np.abs(from_median).mean()
    scores: NDArray[np.float64] = from_median / (deviation or 1.0)
    return scores
