"""Drops by corruptions: their arithmetic, and the limit of the gate."""

from __future__ import annotations

import numpy as np
import pytest

from components.evaluate.metrics.robustness import (
    CorruptionDrop,
    corruption_metrics,
    mean_drops,
    predicted_labels,
)
from regraft_core.formats.option_parsing import parse_options
from regraft_core.formats.options.evaluate import GateOptions
from regraft_core.runtime.errors import InputError
from regraft_core.training.intervals import difference_interval

LABELS = np.array([0, 1] * 50)


def drop(kind: str, strength: int, wrong: int) -> CorruptionDrop:
    """Return the drop of a model that is correct on clean images, and wrong on so many others."""
    corrupted = LABELS.copy()
    corrupted[:wrong] = 1 - corrupted[:wrong]
    return CorruptionDrop.of(kind, strength, LABELS, corrupted, LABELS)


def test_a_drop_is_that_of_the_same_images_with_its_interval() -> None:
    clean, corrupted = LABELS.copy(), LABELS.copy()
    clean[:4] = 1 - clean[:4]
    corrupted[2:20] = 1 - corrupted[2:20]
    found = CorruptionDrop.of("noise", 2, clean, corrupted, LABELS)
    assert (found.clean_accuracy, found.accuracy, found.images) == (0.96, 0.82, 100)
    assert found.drop == pytest.approx(0.14)
    assert (found.drop_low, found.drop_high) == difference_interval(16, 2, 100)


def test_an_image_whose_logits_are_not_finite_is_an_error() -> None:
    logits = np.array([[1.0, 2.0], [np.nan, 0.0], [-np.inf, 0.0], [3.0, np.inf], [1.0, 0.0]])
    assert predicted_labels(logits).tolist() == [1, -1, -1, -1, 0]
    found = CorruptionDrop.of("noise", 1, LABELS[:5], predicted_labels(logits), LABELS[:5])
    assert found.accuracy == 0.2  # the last image alone


def test_the_mean_of_the_strengths_counts_and_the_worst_kind_is_first() -> None:
    drops = [drop("blur", k, wrong) for k, wrong in ((1, 0), (2, 3), (3, 9))]
    drops += [drop("noise", k, wrong) for k, wrong in ((1, 5), (2, 10), (3, 30))]
    assert mean_drops(drops) == pytest.approx({"noise": 0.15, "blur": 0.04})
    assert list(mean_drops(drops)) == ["noise", "blur"]
    assert corruption_metrics(drops)["corruption_drop_blur"] == pytest.approx(0.04)
    assert corruption_metrics([]) == {}


def test_a_limit_without_images_is_refused() -> None:
    with pytest.raises(InputError, match=r"expected --corruption-images above 0"):
        parse_options(GateOptions, max_corruption_drop=0.1)
    options = parse_options(GateOptions, max_corruption_drop=0.1, corruption_images=50)
    assert options.max_corruption_drop == 0.1
