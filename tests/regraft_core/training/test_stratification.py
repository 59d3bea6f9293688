"""Iterative stratification: frequencies of labels, groups, rare labels, determinism."""

from __future__ import annotations

import numpy as np

from regraft_core.training.stratification import stratify

FRACTIONS = (0.65, 0.15, 0.2)


def test_each_label_has_its_fraction_in_each_subset() -> None:
    rng = np.random.default_rng(1)
    counts = (rng.random((2000, 6)) < [0.5, 0.3, 0.1, 0.05, 0.02, 0.01]).astype(np.int64)
    subset = stratify(counts, np.ones(2000, np.int64), FRACTIONS)
    for number, fraction in enumerate(FRACTIONS):
        found = counts[subset == number].sum(axis=0)
        # At random, the deviation of the most frequent label would exceed this in most seeds.
        assert np.abs(found - fraction * counts.sum(axis=0)).max() <= 1
        assert abs((subset == number).sum() - fraction * 2000) <= 3


def test_rare_labels_reach_every_subset() -> None:
    counts = np.zeros((60, 2), np.int64)
    counts[:, 0] = 1
    counts[[5, 20, 41], 1] = 1  # three images: by fractions, validation would have none
    subset = stratify(counts, np.ones(60, np.int64), FRACTIONS, minimum=1)
    assert sorted(subset[[5, 20, 41]]) == [0, 1, 2]


def test_units_count_by_their_images() -> None:
    counts = np.array([[8, 0], [1, 1], [1, 1], [0, 8], [2, 2]])
    subset = stratify(counts, counts.max(axis=1), (0.5, 0.5))
    sums = [counts[subset == number].sum(axis=0).tolist() for number in (0, 1)]
    assert sorted(sums) == [[3, 9], [9, 3]] or sorted(sums) == [[4, 4], [8, 8]]
    assert subset.tolist() == stratify(counts, counts.max(axis=1), (0.5, 0.5)).tolist()


def test_images_without_labels_fill_the_subsets() -> None:
    subset = stratify(np.zeros((10, 3), np.int64), np.ones(10, np.int64), (0.7, 0.3))
    assert np.bincount(subset).tolist() == [7, 3]
