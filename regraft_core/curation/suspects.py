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

from regraft_core.curation.image_quality import ImageMeasures, find_poor_images, measure_quality
from regraft_core.curation.label_errors import find_label_errors
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
from regraft_core.training.linear_head.out_of_fold import out_of_fold_probabilities

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


class _Rank(NamedTuple):
    """Order of an image: kinds of problems by harm, then how severe they are."""

    tier: int
    severity: float


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
    images, splits, measures = _read_images(Path(dataset), reviewed)
    rows, classes = reviewed.rows, reviewed.classes
    probabilities = out_of_fold_probabilities(
        rows, len(classes), reviewed.members, reviewed.options
    )
    errors = find_label_errors(probabilities, rows.labels)
    neighbors = find_neighbors(rows, reviewed.options.seed)
    found: dict[int, list[tuple[_Rank, Finding]]] = {}

    def add(image: int, tier: int, severity: float, kind: str, text: str) -> None:
        found.setdefault(image, []).append((_Rank(tier, -severity), Finding(kind, text)))

    doubt = (1 - errors.margin) / 2
    for k in np.flatnonzero(errors.suspected).tolist():
        given, better = int(rows.labels[k]), int(errors.better[k])
        text = (
            f"labeled {classes[given]} (probability {probabilities[k, given]:.0%}), predicted "
            f"{classes[better]} ({probabilities[k, better]:.0%})"
        )
        add(k, 0, doubt[k], LABEL_ERROR, text)
    for k, other in label_conflicts(neighbors, rows.labels.tolist(), measures):
        text = f"near duplicate of {images[other].path}, labeled {images[other].label}"
        add(k, 0, max(doubt[k], 0.5), LABEL_CONFLICT, text)
    distances = np.log(neighbors.distances.mean(axis=1) + 1e-12)
    for k, score in enumerate(outlier_scores(distances).tolist()):
        if score >= OUTLIER_SCORE:
            text = f"its distance to similar images is {score:.1f} deviations above the median"
            add(k, 1, score, OUTLIER, text)
    for order, poor in enumerate(find_poor_images(measures)):
        add(poor.image, 2, -order, poor.check, poor.text)
    for reasons in found.values():
        reasons.sort(key=lambda reason: reason[0])
    ordered = sorted(found, key=lambda k: (found[k][0][0], images[k].sha256))
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :_SHOWN_CLASSES]
    return [
        Suspect(
            image=images[k],
            split=splits[k],
            findings=tuple(finding for _, finding in found[k]),
            predicted=tuple((classes[j], float(probabilities[k, j])) for j in best[k]),
            better=classes[int(errors.better[k])],
            similar=tuple(images[j] for j in neighbors.indices[k, :_SHOWN_NEIGHBORS]),
        )
        for k in ordered
    ]


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
