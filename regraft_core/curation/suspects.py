"""The images of a dataset that deserve a look, the most harmful first.

First images whose label is probably incorrect: by confident learning, or because a near duplicate
has another label. Then images that are far from all others, then those that show little.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from regraft_core.curation.image_quality import ImageMeasures, find_poor_images, measure_quality
from regraft_core.curation.label_errors import LabelErrors, find_label_errors
from regraft_core.curation.neighbors import (
    OUTLIER_SCORE,
    Neighbors,
    find_neighbors,
    outlier_scores,
)
from regraft_core.curation.reviewed_rows import ReviewedRows, read_rows
from regraft_core.formats.records import ImageRecord, read_split
from regraft_core.images.gray_difference import difference
from regraft_core.images.prefetch import prefetch_map
from regraft_core.runtime.errors import InputError
from regraft_core.runtime.step_reports import ProgressReporter
from regraft_core.training.linear_head.out_of_fold import predict_out_of_fold

LABEL_ERROR, LABEL_CONFLICT, OUTLIER = "label error", "two labels", "outlier"
# Gray versions of small or flat images are alike even if the images are not; they must be equal.
MIN_SIDE_PX, MIN_DEVIATION = 40, 4.0
_SHOWN_NEIGHBORS, _SHOWN_CLASSES = 3, 3


@dataclass(frozen=True)
class Image:
    """An image of the dataset: SHA-256 (hex) of its source bytes, path in the source, class."""

    sha256: str
    path: str
    label: str


@dataclass(frozen=True)
class Finding:
    """Something that is suspicious about an image, in words."""

    kind: str
    text: str


@dataclass(frozen=True)
class Suspect:
    """An image to review.

    Attributes:
        image: The image.
        split: `train` or `validation`.
        findings: What is suspicious, the most harmful first.
        predicted: Classes and out-of-fold probabilities, the most probable three.
        better: The most probable class except the label.
        similar: The nearest images by features.
    """

    image: Image
    split: str
    findings: tuple[Finding, ...]
    predicted: tuple[tuple[str, float], ...]
    better: str
    similar: tuple[Image, ...]


class _Reason(NamedTuple):
    """A finding and its place: kinds of problems by harm, and in a kind the lowest order first."""

    tier: int
    order: float
    finding: Finding


def find_suspects(
    dataset: str | os.PathLike[str],
    features: Sequence[str | os.PathLike[str]],
    head: str | os.PathLike[str],
) -> list[Suspect]:
    """Return the suspected images of train and validation, the most harmful first.

    Args:
        dataset: its folder.
        features: the folders of its features, of all workers.
        head: the folder of the head that was fitted to them.

    Raises:
        InputError: the folders do not match or are incomplete, or an earlier version has made them.
    """
    reviewed = read_rows(features, head)
    rows, classes = reviewed.rows, reviewed.classes
    images, splits, measures = _read_images(Path(dataset), reviewed)
    predicted = predict_out_of_fold(rows, len(classes), reviewed.members, reviewed.options)
    probabilities = predicted.probabilities
    errors = find_label_errors(probabilities, rows.labels, predicted.comparable)
    neighbors = find_neighbors(rows, reviewed.options.seed)
    reasons: dict[int, list[_Reason]] = {}
    for k, reason in (
        *_label_reasons(images, classes, probabilities, errors, neighbors, measures),
        *_image_reasons(neighbors, measures),
    ):
        reasons.setdefault(k, []).append(reason)
    for found in reasons.values():
        found.sort(key=lambda reason: reason[:2])
    ordered = sorted(reasons, key=lambda k: (*reasons[k][0][:2], images[k].sha256))
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :_SHOWN_CLASSES]
    return [
        Suspect(
            image=images[k],
            split=splits[k],
            findings=tuple(reason.finding for reason in reasons[k]),
            predicted=tuple((classes[j], float(probabilities[k, j])) for j in best[k]),
            better=classes[int(errors.better[k])],
            similar=tuple(images[j] for j in neighbors.indices[k, :_SHOWN_NEIGHBORS]),
        )
        for k in ordered
    ]


def _label_reasons(
    images: Sequence[Image], classes: Sequence[str], probabilities: NDArray[np.float64],
    errors: LabelErrors, neighbors: Neighbors, measures: Sequence[ImageMeasures],
) -> Iterator[tuple[int, _Reason]]:  # fmt: skip
    """Yield the images whose label is probably incorrect, by the margin of the label."""
    numbers = {name: number for number, name in enumerate(classes)}
    labels = [numbers[image.label] for image in images]
    for k in np.flatnonzero(errors.suspected).tolist():
        better = int(errors.better[k])
        text = (
            f"labeled {images[k].label} (probability {probabilities[k, labels[k]]:.0%}), predicted "
            f"{classes[better]} ({probabilities[k, better]:.0%})"
        )
        yield k, _Reason(0, errors.margin[k], Finding(LABEL_ERROR, text))
    for k, other in label_conflicts(neighbors, labels, measures):
        text = f"near duplicate of {images[other].path}, labeled {images[other].label}"
        # One of both labels is incorrect, even if the head agrees with each.
        yield k, _Reason(0, min(errors.margin[k], 0.0), Finding(LABEL_CONFLICT, text))


def _image_reasons(
    neighbors: Neighbors, measures: Sequence[ImageMeasures]
) -> Iterator[tuple[int, _Reason]]:
    """Yield the images that are far from all others, and those that show little."""
    distances = np.log(neighbors.distances.mean(axis=1) + 1e-12)
    for k, score in enumerate(outlier_scores(distances).tolist()):
        if score >= OUTLIER_SCORE:
            text = f"its distance to similar images is {score:.1f} deviations above the median"
            yield k, _Reason(1, -score, Finding(OUTLIER, text))
    for order, poor in enumerate(find_poor_images(measures)):
        yield poor.image, _Reason(2, order, Finding(poor.check, poor.text))


def label_conflicts(
    neighbors: Neighbors, labels: Sequence[int], measures: Sequence[ImageMeasures]
) -> Iterator[tuple[int, int]]:
    """Yield each image that has a near duplicate of another class, with the nearest one."""
    for k, nearest in enumerate(neighbors.indices.tolist()):
        for other in nearest:
            if labels[other] != labels[k] and _same(measures[k], measures[other]):
                yield k, other
                break


def _same(one: ImageMeasures, other: ImageMeasures) -> bool:
    levels = difference(one.thumbnail, other.thumbnail)
    small = min(one.width, one.height, other.width, other.height) < MIN_SIDE_PX
    if small or one.thumbnail.std() < MIN_DEVIATION:
        return levels == 0.0
    return levels is not None


def _read_images(
    dataset: Path, reviewed: ReviewedRows
) -> tuple[list[Image], list[str], list[ImageMeasures]]:
    """Read and measure the images of the rows, in their order."""
    images: list[Image] = []
    splits: list[str] = []
    measures: list[ImageMeasures] = []
    records = chain.from_iterable(
        ((split, record) for record in read_split(dataset, split)) for split in reviewed.splits
    )
    progress = ProgressReporter("review: images", len(reviewed.rows))
    labels = reviewed.rows.labels

    def measured(item: tuple[str, ImageRecord]) -> tuple[str, ImageRecord, ImageMeasures]:
        return *item, measure_quality(item[1].encoded)

    for split, record, one in prefetch_map(measured, records, threads=os.cpu_count() or 1):
        if len(images) == len(labels) or record.label != labels[len(images)]:
            raise InputError(f"{dataset}: expected the images of the features, found others")
        path = record.path.encode("utf-8", "replace").decode()  # a name need not be UTF-8
        images.append(Image(record.id, path, reviewed.classes[record.label]))
        splits.append(split)
        measures.append(one)
        progress.advance()
    if len(images) < len(labels):
        raise InputError(f"{dataset}: expected {len(labels)} images, found {len(images)}")
    return images, splits, measures
