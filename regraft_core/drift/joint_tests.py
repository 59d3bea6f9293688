"""Several tests of the same images: their combination, and the correction for their number.

Both use the p-values that all tests have for the same permutations, and so what they have in
common. The permutations of the predicted classes are independent of those within the classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from regraft_core.drift.permutations import Found, p_values


def combined_test(tests: Sequence[Found]) -> Found:
    """Test all hypotheses together, by Fisher's statistic (1932): -2 times the sum of logarithms.

    It finds a change that several tests see a little, such as some images of a new class.
    """
    statistics = -2 * np.log([one.p_values for one in tests]).sum(axis=0)
    return Found(float(statistics[0]), p_values(statistics))


def correct(tests: Sequence[Found]) -> list[float]:
    """Return the p-values of the tests, corrected by the step-down method of Westfall and Young.

    A p-value becomes the fraction of permutations in which one of the tests has so small a p-value
    (Westfall and Young, 1993). It is never above that of Holm's method (1979), and lower if the
    tests have much in common.
    """
    by_test = np.stack([one.p_values for one in tests])
    order = np.argsort(by_test[:, 0], kind="stable")
    # The smallest p-value of each test and those after it, in each permutation.
    smallest = np.minimum.accumulate(by_test[order[::-1]], axis=0)[::-1]
    reached = (smallest <= by_test[order, :1] + 1e-12).mean(axis=1)
    corrected = np.empty(len(tests))
    corrected[order] = np.maximum.accumulate(reached)
    return [float(one) for one in corrected]
