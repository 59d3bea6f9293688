"""Mixed rows: what they consist of, their classes and weights, and the seed."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from regraft_core.formats.options.fine_tune import Mix
from regraft_core.training.mixing import mix_rows

ROWS = 64
SEED = tf.constant([3, 5])
# The row number is its value, and its own class.
NUMBERS = np.arange(ROWS, dtype=np.float32)
TARGETS = tf.one_hot(tf.range(ROWS), ROWS)
ONES = tf.ones(ROWS)
IMAGES = tf.constant(np.broadcast_to(NUMBERS[:, None, None, None], (ROWS, 10, 8, 3)))


def test_off_changes_nothing() -> None:
    inputs, targets, weights = mix_rows("off", SEED, IMAGES, TARGETS, ONES)
    assert inputs is IMAGES and targets is TARGETS and weights is ONES


def test_mixup_makes_means_of_two_rows_and_of_their_classes() -> None:
    pooled = tf.constant(np.stack([NUMBERS, 2 * NUMBERS], axis=1))
    (images, rows), targets, weights = mix_rows("mixup", SEED, (IMAGES, pooled), TARGETS, ONES)
    expected = targets.numpy() @ NUMBERS
    np.testing.assert_allclose(images.numpy().min(axis=(1, 2, 3)), expected, atol=1e-4)
    np.testing.assert_allclose(images.numpy().max(axis=(1, 2, 3)), expected, atol=1e-4)
    np.testing.assert_allclose(rows, np.stack([expected, 2 * expected], axis=1), atol=1e-4)
    np.testing.assert_allclose(weights, 1.0, atol=1e-6)
    kept = np.diag(targets)
    np.testing.assert_allclose(np.diag(np.roll(targets, -1, axis=1)), 1 - kept, atol=1e-6)
    # Beta(0.2, 0.2): most rows are nearly those of before or their followers.
    assert 0.3 < kept.mean() < 0.7
    assert np.mean((kept < 0.1) | (kept > 0.9)) > 0.5 and np.any((kept > 0.2) & (kept < 0.8))


def test_cutmix_puts_a_box_of_the_next_row_into_an_image() -> None:
    pooled = tf.constant(NUMBERS[:, None])
    (images, rows), targets, _ = mix_rows("cutmix", SEED, (IMAGES, pooled), TARGETS, ONES)
    kept, areas = np.diag(targets), []
    for row, image in enumerate(images.numpy()):
        box = image[..., 0] != row
        np.testing.assert_array_equal(image[box], (row + 1) % ROWS)
        assert (image == image[..., :1]).all()
        columns, lines = box.any(axis=0), box.any(axis=1)
        np.testing.assert_array_equal(box, lines[:, None] & columns)
        for inside in (columns, lines):
            assert np.abs(np.diff(inside.astype(int))).sum() <= 2
        areas.append(box.mean())
    np.testing.assert_allclose(kept, 1 - np.array(areas), atol=1e-6)
    np.testing.assert_allclose(rows[:, 0], targets.numpy() @ NUMBERS, atol=1e-4)
    assert 0.05 < np.median(areas) < 0.6 and max(areas) > 0.6


def test_without_a_map_cutmix_makes_means() -> None:
    rows, targets, _ = mix_rows("cutmix", SEED, tf.constant(NUMBERS[:, None]), TARGETS, ONES)
    np.testing.assert_allclose(rows[:, 0], targets.numpy() @ NUMBERS, atol=1e-4)
    assert np.diag(targets).std() > 0.2


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_each_part_keeps_the_weight_of_its_class(kind: Mix) -> None:
    """The loss of a mixed row is the sum of its parts' losses, each with its own weight."""
    random = np.random.default_rng(0)
    weights = random.uniform(0.1, 5, ROWS).astype(np.float32)
    logits = tf.constant(random.normal(size=(ROWS, ROWS)), tf.float32)
    _, plain, _ = mix_rows(kind, SEED, IMAGES, TARGETS, ONES)
    _, targets, mixed = mix_rows(kind, SEED, IMAGES, TARGETS, tf.constant(weights))
    np.testing.assert_allclose(tf.reduce_sum(targets, axis=1), 1.0, atol=1e-5)
    loss = mixed * tf.nn.softmax_cross_entropy_with_logits(targets, logits)
    parts = -(plain * weights * tf.nn.log_softmax(logits)).numpy().sum(axis=1)
    np.testing.assert_allclose(loss, parts, rtol=1e-4)


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_a_seed_determines_the_mixture(kind: Mix) -> None:
    first, again, other = (
        mix_rows(kind, tf.constant(seed), IMAGES, TARGETS, ONES)[1].numpy()
        for seed in ([3, 5], [3, 5], [3, 6])
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.1
    single = mix_rows(kind, SEED, IMAGES[:1], TARGETS[:1], ONES[:1])
    np.testing.assert_allclose(single[0], IMAGES[:1])
