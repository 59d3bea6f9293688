"""Nearest images and outliers of small arrays."""

from __future__ import annotations

import numpy as np

from regraft_core.curation.neighbors import (
    MAX_AXES,
    OUTLIER_SCORE,
    find_neighbors,
    outlier_scores,
    reduced_features,
)
from regraft_core.training.linear_head.head_rows import HeadRows


def rows(values: np.ndarray) -> HeadRows:
    count, width = values.shape
    half = values.astype(np.float16)
    labels = np.zeros(count, np.int32)
    return HeadRows([half[: count // 2], half[count // 2 :]], labels, np.arange(count),
                    values.mean(axis=0), values.var(axis=0), [width])  # fmt: skip


def test_copies_are_nearest_and_a_far_image_is_an_outlier() -> None:
    values = np.random.default_rng(0).normal(size=(60, 100)).astype(np.float32)
    values[41] = values[3]
    values[7] *= 4
    found = find_neighbors(rows(values))
    assert found.indices.shape == found.distances.shape == (60, 10)
    assert (found.indices[3, 0], found.indices[41, 0]) == (41, 3)
    assert found.distances[3, 0] < 1e-2 * found.distances[0, 0]
    scores = outlier_scores(np.log(found.distances.mean(axis=1)))
    assert np.flatnonzero(scores >= OUTLIER_SCORE).tolist() == [7]


def test_what_the_axes_do_not_explain_counts() -> None:
    """Two images differ only in a direction in which no other image varies."""
    values = np.random.default_rng(1).normal(size=(80, 200)).astype(np.float32)
    values[:, 70:] = 0
    values[5] = values[6]
    values[5, 150] = 9
    reduced = reduced_features(rows(values))
    assert reduced.shape == (80, MAX_AXES + 1)
    assert np.linalg.norm(reduced[5] - reduced[6]) > 0.1


def test_few_and_equal_values() -> None:
    assert find_neighbors(rows(np.eye(3, dtype=np.float32))).indices.shape == (3, 2)
    assert outlier_scores(np.ones(5)).tolist() == [0.0] * 5
    assert outlier_scores(np.array([1.0] * 9 + [2.0])).argmax() == 9
