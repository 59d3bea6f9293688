"""The test of whether the predicted classes have the same frequencies as in the reference."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from regraft_core.drift.permutations import Found, p_values

Ints = NDArray[np.integer]


def class_counts_test(
    reference: Ints, images: Ints, classes: int, permutations: int, seed: int
) -> Found:
    """Test whether two samples have the same frequencies of classes.

    Two statistics are combined by the smaller of their p-values (Tippett 1931): Pearson's, for
    changes of many classes, and the largest standardized residual, for one of a single class. All
    p-values are from random tables with the same margins, so they are exact for rare classes too.

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
    rng = np.random.default_rng([seed, 1])  # independent of the permutations within the classes
    tables = rng.multivariate_hypergeometric(total, len(images), permutations, method="count")
    count = int(total.sum())
    center = total * (len(images) / count)
    squares = np.square(np.vstack([observed, tables]) - center) / np.maximum(center, 1e-12)
    residuals = squares / np.maximum(1 - total / count, 1e-12)
    smaller = np.minimum(p_values(squares.sum(axis=1)), p_values(residuals.max(axis=1)))
    distance = np.abs(expected / len(reference) - observed / len(images)).sum() / 2
    return Found(float(distance), p_values(-smaller))
