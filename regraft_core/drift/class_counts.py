"""The test of whether the predicted classes have the same frequencies as in the reference."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from regraft_core.drift.permutations import Found

Ints = NDArray[np.integer]


def class_counts_test(
    reference: Ints, images: Ints, classes: int, permutations: int, seed: int
) -> Found:
    """Test whether two samples have the same frequencies of classes.

    The p-value of Pearson's statistic is from random tables with the same margins, so it is exact
    for rare classes too.

    Args:
        reference: predicted classes [n] of the reference.
        images: predicted classes [m] of the images.
        classes: number of classes.
        permutations: number of random tables.
        seed: of the random tables.

    Returns:
        The total variation distance of the two distributions, in 0..1, with the p-value.
    """
    expected = np.bincount(reference, minlength=classes)
    observed = np.bincount(images, minlength=classes)
    total = expected + observed
    rng = np.random.default_rng(seed)
    tables = rng.multivariate_hypergeometric(total, len(images), permutations, method="count")
    center = total * (len(images) / max(int(total.sum()), 1))
    squares = np.square(np.vstack([observed, tables]) - center) / np.maximum(center, 1e-12)
    statistics = squares.sum(axis=1)
    reached = statistics >= statistics[0] * (1 - 1e-9)
    distance = np.abs(expected / len(reference) - observed / len(images)).sum() / 2
    return Found(float(distance), float(reached.mean()))
