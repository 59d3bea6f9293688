"""Tests of whether images and a reference have the same features within each predicted class.

Labels are permuted within the predicted classes only. So each p-value is exact for the hypothesis
that the images of a class come from one distribution, and a change in the frequency of a class
alone does not reject it. All statistics use the residual of the label, which is 1 for an image and
0 for the reference, minus its mean in the class: this weights the classes as Cochran (1954) does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.stats import rankdata

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]
FOLDS = 5
# Penalty of the classifier, as a multiple of the mean squared length of a row.
PENALTY = 0.1
_CHUNK_VALUES = 1 << 23


@dataclass(frozen=True)
class Labels:
    """The rows that can be compared, and how often their labels are permuted.

    Attributes:
        rows: indices [m] of the rows whose class has both images and reference rows.
        classes: their predicted classes [m].
        observed: their labels, bool [m]: whether a row is an image, not of the reference.
        permutations: number of permutations.
        seed: of the permutations and of the folds.
    """

    rows: Ints
    classes: Ints
    observed: NDArray[np.bool_]
    permutations: int
    seed: int

    def chunks(self) -> Iterator[NDArray[np.bool_]]:
        """Yield the labels [m, k], the observed ones first, then permuted ones, in chunks."""
        rng = np.random.default_rng(self.seed)
        yield self.observed[:, None]
        size = max(_CHUNK_VALUES // max(len(self.rows), 1), 1)
        members = [np.flatnonzero(self.classes == one) for one in np.unique(self.classes)]
        for first in range(0, self.permutations, size):
            count = min(size, self.permutations - first)
            labels = np.empty((len(self.rows), count), bool)
            for rows in members:
                repeated = np.repeat(self.observed[rows][:, None], count, axis=1)
                labels[rows] = rng.permuted(repeated, axis=0)
            yield labels

    def residuals(self, labels: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Return labels [m, k] minus their mean in the class, which permutations keep."""
        counts = np.bincount(self.classes)
        images = np.bincount(self.classes, self.observed)
        means = (images / np.maximum(counts, 1))[self.classes]
        return (labels - means[:, None]).astype(np.float32)


@dataclass(frozen=True)
class Found:
    """A statistic, and p-values [1 + permutations] of the labels and of each permutation of them.

    A p-value is the fraction of all of them that reach a statistic (Phipson and Smyth 2010).
    """

    statistic: float
    p_values: NDArray[np.float64]


def comparable(reference: Ints, images: Ints, permutations: int, seed: int) -> Labels | None:
    """Return the labels of the rows of the reference, followed by those of the images.

    Args:
        reference: predicted classes [n] of the reference.
        images: predicted classes [m] of the images.
        permutations: number of permutations.
        seed: of the permutations.

    Returns:
        None if no class has both.
    """
    classes = np.concatenate([reference, images])
    observed = np.arange(len(classes)) >= len(reference)
    both = np.intersect1d(reference, images)
    rows = np.flatnonzero(np.isin(classes, both))
    if not len(rows):
        return None
    return Labels(rows, classes[rows], observed[rows], permutations, seed)


def classifier_test(products: Floats, labels: Labels) -> Found:
    """Test whether a classifier can tell images from the reference (Lopez-Paz and Oquab 2017).

    It is a ridge regression of the residuals, which predicts each fifth of the rows from the
    others. As it is linear in the labels, permutations cost a product of matrices each.

    Args:
        products: inner products [m, m] of the rows' standardized features.
        labels: of these rows.

    Returns:
        The area under the ROC curve within the classes, 0.5 by chance.
    """
    half = products - class_means(products, labels.classes)
    gram = half - class_means(half.T, labels.classes).T  # of features centered in each class
    penalty = PENALTY * max(float(np.trace(gram)) / len(gram), 1e-12)
    fold = np.random.default_rng(labels.seed).permutation(len(gram)) % FOLDS
    predict = np.zeros_like(gram)
    for one in np.unique(fold):
        train, held_out = np.flatnonzero(fold != one), np.flatnonzero(fold == one)
        inner = gram[np.ix_(train, train)] + penalty * np.eye(len(train), dtype=gram.dtype)
        across = gram[np.ix_(train, held_out)]
        predict[np.ix_(held_out, train)] = cho_solve(cho_factor(inner), across).T
    found = [
        area_under_curve(predict @ labels.residuals(one), one, labels.classes)
        for one in labels.chunks()
    ]
    return _found(found)


def mean_discrepancy_test(products: Floats, labels: Labels) -> Found:
    """Test the maximum mean discrepancy (Gretton et al. 2012) within the classes.

    The kernel is Gaussian; its variance is the median squared distance of all rows.

    Args:
        products: inner products [m, m] of the rows' standardized features.
        labels: of these rows.

    Returns:
        The discrepancy, squared, of the classes' differences of means, weighted as the residuals.
    """
    squares = products.diagonal()
    distances = np.maximum(squares[:, None] + squares - 2 * products, 0.0)
    above = distances[np.triu_indices(len(products), 1)]
    median = float(np.median(above)) if len(above) else 0.0
    kernel = np.exp(-distances / max(median, 1e-12)).astype(np.float32)
    weight = float(np.square(labels.residuals(labels.observed[:, None])).sum())
    found = []
    for one in labels.chunks():
        residuals = labels.residuals(one)
        found.append(np.einsum("ij,ij->j", residuals, kernel @ residuals) / weight**2)
    return _found(found)


def lower_scores_test(scores: Floats, labels: Labels) -> Found:
    """Test whether images have lower scores than the reference, within the classes.

    This is the stratified rank sum test of van Elteren (1960).

    Args:
        scores: [m], finite.
        labels: of these rows.

    Returns:
        The chance that an image has a lower score than a reference row of its class.
    """
    columns = -scores[:, None]
    found = [
        area_under_curve(np.broadcast_to(columns, one.shape), one, labels.classes)
        for one in labels.chunks()
    ]
    return _found(found)


def area_under_curve(scores: Floats, labels: NDArray[np.bool_], classes: Ints) -> Floats:
    """Return the chance [k] that a labeled row has a higher score than another of its class.

    Args:
        scores: [m, k].
        labels: [m, k], with the same number of labeled rows of a class in each column.
        classes: [m].
    """
    wins, pairs = np.zeros(scores.shape[1]), 0.0
    for one in np.unique(classes):
        rows = np.flatnonzero(classes == one)
        images = int(labels[rows, 0].sum())
        ranks = rankdata(scores[rows], axis=0)
        sums = np.where(labels[rows], ranks, 0.0).sum(axis=0)
        wins += (sums - images * (images + 1) / 2) / (len(rows) + 1)
        pairs += images * (len(rows) - images) / (len(rows) + 1)
    return wins / pairs


def class_means(rows: Floats, classes: Ints) -> Floats:
    """Return rows [m, k] of which each is the mean of those of its class [m]."""
    means = np.empty_like(rows)
    for one in np.unique(classes):
        means[classes == one] = rows[classes == one].mean(axis=0)
    return means


def _found(chunks: list[Floats]) -> Found:
    statistics = np.concatenate(chunks)
    return Found(float(statistics[0]), p_values(statistics))


def p_values(statistics: Floats) -> NDArray[np.float64]:
    """Return the fraction of statistics [k] that reach each one; rounding makes no order."""
    scale = np.abs(statistics).max() or 1.0
    ranks = rankdata(-np.round(statistics / scale, 6), method="max")
    found: NDArray[np.float64] = ranks / len(statistics)
    return found
