"""Accuracy and recalls of the test images by slice, such as a camera or a site."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from regraft_core.training.intervals import wilson_interval

Ints = NDArray[np.integer]
NO_LABEL = -1


def slice_name(column: str, value: str) -> str:
    """Return the column and the value of a slice in one text."""
    return f"{column} {value or '(missing)'}"


@dataclass(frozen=True)
class SliceRecall:
    """The recall of a class in a slice, with its 95% interval; `images` are of that class."""

    name: str
    images: int
    correct: int
    recall: float
    low: float
    high: float


@dataclass(frozen=True)
class SliceMetrics:
    """The accuracy of the test images with one value of a column, with its 95% interval.

    `recalls` are those of the classes in the slice, the one with the lowest upper bound first.
    """

    column: str
    value: str
    images: int
    correct: int
    accuracy: float
    low: float
    high: float
    recalls: list[SliceRecall]

    @property
    def name(self) -> str:
        """The column and the value in one text."""
        return slice_name(self.column, self.value)


def measure_slices(
    columns: Sequence[str],
    values: Sequence[Sequence[str]],
    predicted: Ints,
    true_labels: Ints,
    classes: Sequence[str],
) -> list[SliceMetrics]:
    """Measure each slice that has test images, those with the lowest upper bound first.

    Args:
        columns: names of the columns.
        values: of each image, one for each column.
        predicted: labels int [n]; `NO_LABEL` counts as an error.
        true_labels: int [n].
        classes: names of the classes.
    """
    correct = predicted == true_labels
    found = []
    for index, column in enumerate(columns):
        members: dict[str, list[int]] = {}  # one pass, because there may be a thousand values
        for image, row in enumerate(values):
            members.setdefault(row[index], []).append(image)
        for value, inside in sorted(members.items()):
            recalls = _recalls(correct[inside], true_labels[inside], classes)
            images, hits = len(inside), int(correct[inside].sum())
            interval = wilson_interval(hits, images)
            found.append(
                SliceMetrics(column, value, images, hits, hits / images, *interval, recalls)
            )
    return sorted(found, key=lambda one: (one.high, one.accuracy))


def untested_slices(
    known: Mapping[str, Iterable[str]], slices: Sequence[SliceMetrics]
) -> list[str]:
    """Return the names of the slices of the dataset, values by column, that no test image has."""
    tested = {(one.column, one.value) for one in slices}
    return [
        slice_name(column, value)
        for column, values in known.items()
        for value in values
        if (column, value) not in tested
    ]


def _recalls(correct: NDArray[np.bool_], labels: Ints, classes: Sequence[str]) -> list[SliceRecall]:
    rows = []
    for label in np.unique(labels).tolist():
        own = correct[labels == label]
        hits = int(own.sum())
        interval = wilson_interval(hits, len(own))
        rows.append(SliceRecall(classes[label], len(own), hits, hits / len(own), *interval))
    return sorted(rows, key=lambda row: (row.high, row.recall))


def probabilities_by_chance(slices: Sequence[SliceMetrics], minimum: float) -> list[float]:
    """Return for each slice how probable so few correct images are if its accuracy is the minimum.

    They are the exact binomial ones, adjusted for the number of slices by the method of Holm
    (1979): if no slice is below the minimum, one of them is below 5% in at most 5% of runs. It
    holds for slices that share images, as those of different columns do, and rejects whatever
    Bonferroni's rejects, and more.
    """
    counts = np.array([(one.correct, one.images) for one in slices]).reshape(-1, 2)
    single = binom.cdf(counts[:, 0], counts[:, 1], minimum)
    order = np.argsort(single, kind="stable")
    stepped = np.maximum.accumulate(single[order] * np.arange(len(single), 0, -1))
    adjusted = np.empty(len(single))
    adjusted[order] = np.minimum(stepped, 1.0)
    return [float(value) for value in adjusted]


def metrics_by_slice(slices: Sequence[SliceMetrics]) -> Mapping[str, float]:
    """Return the accuracy of the worst slice, the first one, if there are any."""
    return {"worst_slice_accuracy": slices[0].accuracy} if slices else {}
