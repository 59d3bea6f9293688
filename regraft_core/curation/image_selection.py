"""Which unlabeled images to label next: uncertain ones that differ from each other.

The uncertainty of an image is one minus the difference of its two highest probabilities (Scheffer,
Decomain and Wrobel, 2001). Images are taken one by one, each time the one with the highest product
of uncertainty and distance to those taken before, which spreads them as core sets are (Sener and
Savarese, arXiv 1708.00489).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Images from which each one is taken: the most uncertain ones, this many times the wanted number.
POOL_FACTOR = 10


def uncertainties(probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the uncertainty of each row of probabilities [n, classes], float [n], 0..1."""
    highest = np.sort(probabilities.astype(np.float64), axis=1)[:, ::-1]
    difference: NDArray[np.float64] = highest[:, 0] - highest[:, 1]
    return 1.0 - difference


def select_images(
    probabilities: NDArray[np.floating], features: NDArray[np.floating],
    in_distribution: NDArray[np.bool_], count: int,
) -> NDArray[np.int64]:  # fmt: skip
    """Return the indices of at most `count` images, the most useful first.

    Out-of-distribution images are taken only if there are too few others.

    Args:
        probabilities: [n, classes].
        features: [n, width]; distances are Euclidean, between features of length 1.
        in_distribution: bool [n].
        count: number of images.
    """
    uncertain = uncertainties(probabilities)
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    points = (features / np.maximum(norms, 1e-12)).astype(np.float32)
    taken: list[int] = []
    distances = np.full(len(points), np.inf)
    for group in (np.flatnonzero(in_distribution), np.flatnonzero(~in_distribution)):
        wanted = min(count - len(taken), len(group))
        order = np.argsort(-uncertain[group], kind="stable")
        pool = group[order[: POOL_FACTOR * wanted]]
        for _ in range(wanted):
            # Nothing is taken yet: the most uncertain one.
            spread = np.minimum(distances[pool], 1.0) if taken else np.ones(len(pool))
            best = int(pool[np.argmax(uncertain[pool] * spread + 1e-12 * uncertain[pool])])
            taken.append(best)
            pool = pool[pool != best]
            new = np.linalg.norm(points - points[best], axis=1)
            distances = np.minimum(distances, new)
    return np.array(taken, np.int64)
