"""The test images that are sent to the server: evenly spread, and of each class and file format."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable

from regraft_core.formats.records import ImageRecord, read_split, spaced_records
from regraft_core.images.file_types import image_format

SPREAD, MOST = 32, 512
"""Evenly spread images of a sample that adapts to the split, and its largest size."""
_Kind = tuple[str, int | str]


def select_sample(dataset: str | os.PathLike[str], images: int = 0) -> list[ImageRecord]:
    """Return records of the test split, in its order.

    Args:
        dataset: the dataset's folder.
        images: their number, evenly spread over the split. With 0, they are 32, the largest file,
            and an image of each file format and of each class that these lack, at most 512.

    Raises:
        DataError: the test split is empty.
    """
    if images:
        return spaced_records(dataset, "test", images)
    spread = {record.id for record in spaced_records(dataset, "test", SPREAD)}
    return _complete(enumerate(read_split(dataset, "test")), spread)


def _complete(
    records: Iterable[tuple[int, ImageRecord]], spread: Collection[str]
) -> list[ImageRecord]:
    """Return the spread records, and those of the kinds that these lack."""
    chosen: dict[int, ImageRecord] = {}
    firsts: dict[_Kind, tuple[int, ImageRecord]] = {}
    largest: tuple[int, ImageRecord] | None = None
    for index, record in records:
        if record.id in spread:
            chosen[index] = record
            continue
        for kind in _kinds(record):
            firsts.setdefault(kind, (index, record))
        if largest is None or len(record.encoded) > len(largest[1].encoded):
            largest = index, record
    seen = set().union(*map(_kinds, chosen.values()))
    if largest is not None:
        firsts = {("size", "largest"): largest} | firsts
    # Formats before classes, which can be more than fit.
    for kind in sorted(firsts, key=lambda kind: kind[0], reverse=True):
        index, record = firsts[kind]
        if kind not in seen and len(chosen) < MOST:
            chosen[index] = record
            seen |= _kinds(record)
    return [chosen[index] for index in sorted(chosen)]


def _kinds(record: ImageRecord) -> set[_Kind]:
    """Return the file format and the class of an image."""
    labels = (record.label,) if record.labels is None else record.labels
    return {("format", image_format(record.encoded)), *(("class", label) for label in labels)}
