"""Out-of-fold probabilities of rows with changed labels."""

from __future__ import annotations

import numpy as np
import pytest

from regraft_core.curation.label_errors import find_label_errors
from regraft_core.formats.options.train_head import HeadOptions
from regraft_core.runtime.errors import InputError
from regraft_core.training.linear_head.head_rows import HeadRows
from regraft_core.training.linear_head.held_out_fits import Method, Trial
from regraft_core.training.linear_head.out_of_fold import predict_out_of_fold


def trial(method: Method) -> Trial:
    return Trial("gap", "level", method, 1e-3, 0.0, 0.0, 1.0, 90, 0.0, 0.0)


@pytest.mark.parametrize("methods", [("ridge", "discriminant"), ("logistic",)])
def test_changed_labels_have_low_probabilities(methods: tuple[Method, ...]) -> None:
    rng = np.random.default_rng(0)
    true = np.arange(120) % 3
    values = (rng.normal(size=(120, 10)) + 5 * np.eye(10)[true]).astype(np.float16)
    labels = true.astype(np.int32)
    changed = np.array([4, 50, 101])
    labels[changed] = (labels[changed] + 1) % 3
    wide = values.astype(np.float32)
    rows = HeadRows([values[:70], values[70:]], labels, np.arange(120), wide.mean(axis=0),
                    wide.var(axis=0), [10])  # fmt: skip
    predicted = predict_out_of_fold(rows, 3, [trial(one) for one in methods], HeadOptions())
    assert predicted.comparable.all()
    found = predicted.probabilities
    np.testing.assert_allclose(found.sum(axis=1), 1.0)
    assert (found.argmax(axis=1) == true).mean() > 0.9
    given = found[np.arange(120), labels]
    assert given[changed].max() < np.median(given) / 3


def test_a_row_and_its_duplicates_are_not_fitted() -> None:
    """Of random features, only rows of the same group could show the label."""
    rng = np.random.default_rng(1)
    values = np.repeat(rng.normal(size=(60, 40)), 2, axis=0).astype(np.float32)
    labels = np.repeat(rng.integers(0, 2, 60), 2).astype(np.int32)
    rows = HeadRows([values], labels, np.repeat(np.arange(60), 2), values.mean(axis=0),
                    values.var(axis=0), [40])  # fmt: skip
    found = predict_out_of_fold(rows, 2, [trial("ridge")], HeadOptions()).probabilities
    assert (found.argmax(axis=1) == labels).mean() < 0.75


@pytest.mark.parametrize("method", ["ridge", "logistic"])
def test_a_class_of_one_image_and_its_duplicates_is_not_suspected(method: Method) -> None:
    """No head can predict a class that it never saw, which says nothing about the others either."""
    rng = np.random.default_rng(2)
    labels = np.array([0] * 20 + [1] * 20 + [2, 2, 3, 3], np.int32)
    values = (np.eye(8)[labels] + 0.05 * rng.normal(size=(44, 8))).astype(np.float32)
    rows = HeadRows([values], labels, np.array([*range(42), 42, 42]), values.mean(axis=0),
                    values.var(axis=0), [8])  # fmt: skip
    found = predict_out_of_fold(rows, 4, [trial(method)], HeadOptions())
    assert np.flatnonzero(~found.comparable).tolist() == [42, 43]
    errors = find_label_errors(found.probabilities, labels, found.comparable)
    assert np.flatnonzero(errors.suspected).tolist() == []


@pytest.mark.parametrize("count", [1, 4])
def test_near_duplicates_of_one_image_cannot_be_compared(count: int) -> None:
    values = np.ones((count, 8), np.float32)
    rows = HeadRows([values], np.arange(count, dtype=np.int32), np.zeros(count, np.int64),
                    values.mean(axis=0), values.var(axis=0), [8])  # fmt: skip
    with pytest.raises(InputError, match="review: expected images that differ"):
        predict_out_of_fold(rows, count, [trial("ridge")], HeadOptions())
