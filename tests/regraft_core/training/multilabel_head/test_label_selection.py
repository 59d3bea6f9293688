"""The head of several labels: folds, levels, penalty, temperature, thresholds, all rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from regraft_core.formats.options.train_head import HeadOptions
from regraft_core.training.linear_head.head_rows import HeadRows
from regraft_core.training.multilabel_head.label_selection import (
    LabelHead,
    choose_label_head,
    deal_label_folds,
    fit_label_head_again,
)

OPTIONS = HeadOptions(folds=4)


def rows_of(
    features: NDArray[Any], labels: NDArray[Any], images: NDArray[Any] | None = None
) -> HeadRows:
    stored = features.astype(np.float32)
    numbers = np.arange(len(labels)) if images is None else images
    return HeadRows([stored], labels.astype(np.uint8), numbers, stored.mean(0), stored.var(0),
                    (stored.shape[1],))  # fmt: skip


def mixtures(count: int = 300, noise: float = 0.4) -> tuple[HeadRows, NDArray[np.bool_]]:
    """Return sums of the patterns of three labels, the last one rare."""
    rng = np.random.default_rng(3)
    labels = rng.random((count, 3)) < [0.5, 0.3, 0.08]
    features = labels @ rng.normal(size=(3, 10)) + rng.normal(0, noise, (count, 10))
    return rows_of(features, labels), labels


def predict(head: LabelHead, rows: HeadRows) -> NDArray[np.float64]:
    probabilities: NDArray[np.float64] = expit(rows.parts[0] @ head.kernel + head.bias)
    return probabilities


def test_the_head_predicts_labels_that_occur_together() -> None:
    rows, labels = mixtures()
    head = choose_label_head({"gap": rows}, OPTIONS)
    predicted = predict(head, rows) >= head.thresholds
    assert (predicted == labels).mean() > 0.97
    assert head.held_out["macro_f1"] > 0.9
    assert head.held_out_logits.shape == labels.shape
    np.testing.assert_array_equal(head.held_out_labels, labels)
    logistic = [trial.loss for trial in head.trials if trial.method == "logistic"]
    assert logistic == sorted(logistic)
    assert head.members[0].penalty == head.trials[0].penalty


def test_one_label_is_a_question_of_yes_or_no() -> None:
    rows, labels = mixtures()
    single = rows_of(rows.parts[0], labels[:, :1])
    head = choose_label_head({"gap": single}, OPTIONS)
    assert (head.kernel.shape[1], len(head.thresholds)) == (1, 1)
    assert ((predict(head, single) >= head.thresholds) == labels[:, :1]).mean() > 0.97


def test_informative_levels_are_chosen() -> None:
    rows, labels = mixtures()
    noise = rows_of(np.random.default_rng(0).normal(size=(300, 10)), labels)
    assert choose_label_head({"gap": noise, "all levels": rows}, OPTIONS).levels == "all levels"


def test_held_out_probabilities_are_calibrated() -> None:
    rows, labels = mixtures(1500, noise=2.0)
    head = choose_label_head({"gap": rows}, HeadOptions(folds=3))
    probabilities = expit(head.held_out_logits)
    for low, high in ((0.1, 0.4), (0.4, 0.7), (0.7, 1.0)):
        inside = (probabilities >= low) & (probabilities < high)
        assert abs(labels[inside].mean() - probabilities[inside].mean()) < 0.06


def test_each_image_counts_once_and_in_its_own_right() -> None:
    """Views of an image do not count again, and all images of a group count."""
    rows, labels = mixtures(80)
    pages = np.arange(80) // 8
    twice = replace(
        rows, parts=rows.parts * 2, labels=np.tile(rows.labels, (2, 1)), images=np.tile(pages, 2),
        views=2,
    )  # fmt: skip
    head = choose_label_head({"gap": twice}, OPTIONS)
    np.testing.assert_array_equal(head.held_out_labels, labels)
    assert head.rows == 160


def test_folds_keep_images_together_and_labels_in_all_of_them() -> None:
    rng = np.random.default_rng(1)
    of_image = (rng.random((60, 3)) < [0.5, 0.3, 0.1]).astype(np.uint8)
    of_image[:4, 2] = 1
    labels, images = np.tile(of_image, (2, 1)), np.tile(np.arange(60), 2)
    folds = deal_label_folds(labels, images, 4, seed=5)
    np.testing.assert_array_equal(folds[:60], folds[60:])
    counts = np.array([of_image[folds[:60] == fold].sum(axis=0) for fold in range(4)])
    assert np.ptp(counts, axis=0).max() <= 1
    assert np.ptp(np.bincount(folds)) <= 4


def test_near_duplicates_of_one_group_need_no_folds() -> None:
    rows = rows_of(np.eye(4), np.eye(4)[:, :2], np.zeros(4, np.int64))
    head = choose_label_head({"gap": rows}, OPTIONS)
    assert (head.trials, head.thresholds, head.folds) == ([], [0.5, 0.5], 0)


def test_fitting_again_to_the_same_rows_gives_the_same_head() -> None:
    rows, _ = mixtures(120)
    head = choose_label_head({"gap": rows}, OPTIONS)
    again = fit_label_head_again(head, rows, OPTIONS)
    np.testing.assert_array_equal(again.kernel, head.kernel)
    np.testing.assert_array_equal(again.bias, head.bias)
