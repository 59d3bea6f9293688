"""Confident learning on small tables of probabilities."""

from __future__ import annotations

import numpy as np

from regraft_core.curation.label_errors import find_label_errors


def test_images_counted_as_another_class_are_suspected() -> None:
    labels = np.array([0, 0, 0, 1, 1, 1])
    probabilities = np.array(
        [[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8], [0.4, 0.6], [0.55, 0.45]]
    )
    found = find_label_errors(probabilities, labels, np.ones(len(labels), bool))
    # Thresholds are the means 0.6 and 0.617: the third is counted as class 1. The last is counted
    # as neither, but predicted as class 0.
    assert found.suspected.tolist() == [False, False, True, False, False, True]
    assert found.better.tolist() == [1, 1, 1, 0, 0, 0]
    np.testing.assert_allclose(found.margin, [0.8, 0.6, -0.8, 0.6, 0.2, -0.1])


def test_a_rare_class_is_found_below_one_half() -> None:
    """The head is never confident of class 1, so its own mean probability is the threshold."""
    labels = np.array([0] * 8 + [1, 1])
    probabilities = np.full((10, 2), [0.9, 0.1])
    probabilities[7] = [0.6, 0.4]  # labeled 0, as probable of class 1 as the images of class 1
    probabilities[8:] = [0.7, 0.3]
    found = find_label_errors(probabilities, labels, np.ones(len(labels), bool))
    assert found.suspected[7]
    assert found.margin[7] > 0 and not found.suspected[:7].any()


def test_a_class_without_images_is_never_counted() -> None:
    probabilities = np.array([[0.2, 0.1, 0.7], [0.1, 0.8, 0.1], [0.6, 0.3, 0.1]])
    found = find_label_errors(probabilities, np.array([0, 1, 0]), np.ones(3, bool))
    assert found.suspected.tolist() == [True, False, False]
