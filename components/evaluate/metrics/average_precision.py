"""Average precisions of the classes of images with several labels, of many resamples at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from components.evaluate.metrics.bootstrap import ROUNDS, batches_of_rounds
from components.evaluate.metrics.means import mean_of_known, ratio
from regraft_core.runtime.machine import available_cores
from regraft_core.runtime.step_reports import ProgressReporter

Floats = NDArray[np.floating]
Flags = NDArray[np.bool_]
Ints = NDArray[np.integer]


@dataclass(frozen=True)
class _ClassRanking:
    """The images of one class by falling probability, to the last that has the label.

    `gained` are the images with the label, from one threshold to the next, and `ranked` all images:
    products with weights of the images, [thresholds, images] @ [images, rounds].
    """

    gained: csr_array
    ranked: csr_array


class LabelRanking:
    """The order of the images by the probabilities of each class, which all resamples share."""

    def __init__(self, probabilities: Floats, true_labels: Flags) -> None:
        """Sort the images.

        Args:
            probabilities: float [n, classes].
            true_labels: bool [n, classes].
        """
        self._class_count = true_labels.shape[1]
        self._known = np.flatnonzero(true_labels.any(axis=0))
        ones = np.ones(len(true_labels), np.float32)  # shared by all matrices
        self._rankings = [_rank(probabilities[:, k], true_labels[:, k], ones) for k in self._known]

    def average_precisions(self, weights: Floats) -> Floats:
        """Return the average precision of each class, float64 [classes, rounds].

        That is the mean, over the images of the class, of the precision among all images that have
        at least their probability, so images with the same probability count together. It is the
        area under the stepwise precision-recall curve. NaN for a class without images.

        Args:
            weights: of the images, float32 [n, rounds]; whole numbers are copies.
        """
        found = np.full((self._class_count, weights.shape[1]), np.nan)

        def of_class(ranking: _ClassRanking) -> Floats:
            above = (ranking.ranked @ weights).cumsum(axis=0)
            hits = (gained := ranking.gained @ weights).cumsum(axis=0)
            return _area(gained, hits, above)

        with ThreadPoolExecutor(available_cores()) as threads:
            for k, area in zip(self._known, threads.map(of_class, self._rankings), strict=True):
                found[k] = area
        return found

    def means(self, weights: Floats) -> Floats:
        """Return the mean of the average precisions over classes with images, float64 [rounds]."""
        found = self.average_precisions(weights)
        return mean_of_known(found, np.isfinite(found))


def _rank(probabilities: Floats, is_true: Flags, ones: Floats) -> _ClassRanking:
    order = np.argsort(-probabilities, kind="stable")
    ranked, positives = probabilities[order], np.flatnonzero(is_true[order])
    # Where the images with the probability of each image of the class end.
    ends = np.unique(np.searchsorted(-ranked, -ranked[positives], side="right"))
    starts = np.searchsorted(positives, ends)
    return _ClassRanking(
        _sums(order[positives], starts, ones), _sums(order[: ends[-1]], ends, ones)
    )


def _sums(images: Ints, ends: Ints, ones: Floats) -> csr_array:
    """Return the matrix whose rows add up consecutive images, each row to one of the ends."""
    places = images.astype(np.int32), np.r_[0, ends].astype(np.int32)
    return csr_array((ones[: len(images)], *places), shape=(len(ends), len(ones)))


def chance_scores(probabilities: Floats, true_labels: Flags, seed: int) -> Floats:
    """Return the mAP of the same predictions for shuffled images, float64 [rounds].

    A model that knows nothing of the images is one of these, however many images each class has, so
    they are those of a permutation test (Fisher 1935).

    Args:
        probabilities: float [n, classes].
        true_labels: bool [n, classes].
        seed: of the permutations.
    """
    images, known = len(true_labels), np.flatnonzero(true_labels.any(axis=0))
    if not len(known):
        return np.full(ROUNDS, np.nan)
    progress = ProgressReporter("evaluate: shuffles of the predictions", ROUNDS)
    ends = [_ends(probabilities[:, k]) for k in known]
    generator, means = np.random.default_rng(seed), []
    for rounds in batches_of_rounds(images, ROUNDS):
        # All classes are shuffled with the same permutations: the rank that each image gets.
        ranks = np.argsort(generator.random((images, rounds), np.float32), axis=0)
        areas = [
            _chance_areas(end[np.sort(ranks[true_labels[:, k]], axis=0)])
            for k, end in zip(known, ends, strict=True)
        ]
        means.append(np.mean(areas, axis=0))
        progress.advance(rounds)
    return np.concatenate(means)


def _ends(probabilities: Floats) -> Ints:
    """Return, for each rank, the number of images with at least its probability, int [n]."""
    ranked = -np.sort(-probabilities)
    return np.searchsorted(-ranked, -ranked, side="right")


def _chance_areas(above: Ints) -> Floats:
    """Return average precisions, float64 [rounds].

    Args:
        above: for each image of the class, by falling probability, the images with at least its
            probability, int [images of the class, rounds].
    """
    count = len(above)
    hits = np.broadcast_to(np.arange(1, count + 1)[:, None], above.shape)
    # Images with the same probability count together: each has the hits of the last of them.
    last = np.where(np.r_[above[1:] != above[:-1], np.ones((1, above.shape[1]), bool)], hits, count)
    hits = np.minimum.accumulate(last[::-1], axis=0)[::-1]
    areas: Floats = (hits / above).mean(axis=0)
    return areas


def _area(gained: Floats, hits: Floats, above: Floats) -> Floats:
    """Return the area under stepwise precision-recall curves, float64 [rounds].

    Args:
        gained: images of the class at each threshold, by falling threshold, [thresholds, rounds].
        hits: the sums of them to each threshold.
        above: all images that reach the threshold.
    """
    precision = np.divide(hits, above, out=np.zeros_like(hits), where=above > 0)
    return ratio((precision * gained).sum(axis=0), hits[-1])
