"""Which images are chosen, on arrays of a few rows."""

from __future__ import annotations

import numpy as np
import pytest

from regraft_core.curation.image_selection import (
    Candidate,
    CandidatePool,
    label_uncertainties,
    select_images,
    uncertainties,
)

CERTAIN, UNSURE, UNCERTAIN = [0.98, 0.01, 0.01], [0.6, 0.3, 0.1], [0.4, 0.4, 0.2]


def test_the_uncertainty_is_that_of_the_two_best_classes() -> None:
    found = uncertainties(np.array([CERTAIN, UNSURE, UNCERTAIN], np.float32))
    assert found == pytest.approx([0.03, 0.7, 1.0], abs=1e-6)


def test_the_uncertainty_of_several_labels_is_that_of_the_least_certain() -> None:
    probabilities = np.array([[0.0, 1.0], [0.1, 0.6], [0.2, 0.98]], np.float32)
    found = label_uncertainties(probabilities, [0.2, 0.6])
    assert found == pytest.approx([0.0, 1.0, 1.0], abs=1e-6)
    assert label_uncertainties(probabilities[1:2], [0.2, 0.2]) == pytest.approx([0.5])
    assert label_uncertainties(np.array([[0.0, 1.0]]), [0.0, 1.0]).tolist() == [1.0]


def test_copies_of_an_uncertain_image_wait_for_others() -> None:
    probabilities = np.array([UNCERTAIN, UNCERTAIN, UNSURE, CERTAIN])
    features = np.array([[1, 0], [1, 0], [0, 1], [-1, 0]], np.float32)
    chosen = select_images(probabilities, features, np.ones(4, bool), 4)
    assert chosen.tolist() == [0, 2, 3, 1]


def test_ood_images_come_last() -> None:
    probabilities = np.array([UNCERTAIN, CERTAIN, UNSURE])
    known = np.array([False, True, True])
    features = np.eye(3, dtype=np.float32)
    assert select_images(probabilities, features, known, 3).tolist() == [2, 1, 0]
    assert select_images(probabilities, features, known, 2).tolist() == [2, 1]


def test_each_image_once_and_no_more_than_there_are() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(4), 30)
    probabilities[:10] = [1, 0, 0, 0]  # an uncertainty of 0
    features = np.zeros((30, 5), np.float16)  # all equal, and of length 0
    chosen = select_images(probabilities, features, rng.random(30) < 0.5, 99)
    assert sorted(chosen.tolist()) == list(range(30))


def test_images_without_finite_probabilities_are_never_taken() -> None:
    probabilities = np.array([[np.nan, np.nan], [0.9, 0.1], [0.5, np.inf], [0.6, 0.4]])
    features = np.array([[0.0, 1.0], [np.inf, 0.0], [1.0, 0.0], [np.nan, 1.0]], np.float16)
    taken = select_images(probabilities, features, np.array([True, True, False, True]), 4)
    assert taken.tolist() == [3, 1]


@pytest.mark.parametrize("in_distribution", [0.0, 0.03, 0.9])
def test_a_pool_keeps_few_images_and_selects_the_same_ones(in_distribution: float) -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(4), 500).round(2)  # rounded: some are equally uncertain
    features = rng.normal(size=(500, 6)).astype(np.float16)
    known = rng.random(500) < in_distribution
    pool, uncertain = CandidatePool(3), uncertainties(probabilities)
    for k in range(500):
        pool.add([Candidate(k, uncertain[k], features[k], bool(known[k]))])
        assert len(pool._candidates) <= 90
    assert pool.select() == select_images(probabilities, features, known, 3).tolist()
    assert CandidatePool(3).select() == []
