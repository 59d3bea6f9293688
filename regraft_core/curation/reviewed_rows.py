"""The features of all train and validation images, as the head of a run reads them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from regraft_core.formats.manifests.dataset import Split
from regraft_core.formats.manifests.features import Level
from regraft_core.formats.manifests.model import ModelManifest
from regraft_core.formats.option_parsing import select_options
from regraft_core.formats.options.train_head import HeadOptions
from regraft_core.runtime.errors import InputError
from regraft_core.training.feature_store import LEVELS, FeatureRows, level_columns, read_manifests
from regraft_core.training.linear_head.head_rows import HeadRows
from regraft_core.training.linear_head.held_out_fits import Trial

REVIEWED_SPLITS: tuple[Split, ...] = ("train", "validation")


@dataclass(frozen=True)
class ReviewedRows:
    """One row for each image, train before validation, and how the head was fitted.

    Attributes:
        rows: The features, in the order of the dataset's shards.
        splits: The splits of the rows, in their order.
        classes: Class names.
        members: What the head is the mean of.
        options: The options of the head.
    """

    rows: HeadRows
    splits: tuple[Split, ...]
    classes: list[str]
    members: list[Trial]
    options: HeadOptions


def read_rows(
    features: Sequence[str | os.PathLike[str]], head: str | os.PathLike[str]
) -> ReviewedRows:
    """Read the features of the original images that the head reads.

    Raises:
        InputError: they are incomplete or of other data than the head, or the head is of an
            earlier version.
    """
    manifest, model = read_manifests(features)[0], ModelManifest.read(head)
    if model.dataset_digest != manifest.dataset_digest:
        raise InputError(f"{head}: expected a head of the same dataset as the features")
    try:
        levels = [Level(**level) for level in model.head["levels"]]
        members = [Trial(**trial) for trial in model.head["members"]]
        pooling = str(model.head["pooling"])
    except (KeyError, TypeError, ValidationError) as error:
        raise InputError(
            f"{head}: expected a head solved on cached features, which this version of Regraft "
            "makes; run the pipeline again"
        ) from error
    array = LEVELS if levels else pooling
    if array not in manifest.arrays or not members:
        raise InputError(
            f"{head}: expected features of {array!r}, got {', '.join(manifest.arrays)}"
        )
    parts: list[NDArray[Any]] = []
    labels, groups, first = [], [], 0
    for split in REVIEWED_SPLITS:
        stored = FeatureRows(features, split, array)
        whole = not levels or levels == manifest.levels
        columns = slice(None) if whole else level_columns(manifest, levels)
        parts += [part[:, columns] for part in stored.parts()]
        labels.append(stored.labels)
        groups.append(stored.groups() + first)  # a group is in one split only
        first += len(stored)
    mean, variance = _moments(parts)
    return ReviewedRows(
        HeadRows(
            parts, np.concatenate(labels), np.concatenate(groups), mean, variance,
            [level.width for level in levels] or [len(mean)],
        ),
        REVIEWED_SPLITS, manifest.classes, members, select_options(HeadOptions, model.options),
    )  # fmt: skip


def _moments(parts: Sequence[NDArray[Any]]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return mean and variance of each feature, float32 [width]."""
    count = sum(map(len, parts))
    mean = sum(part.sum(axis=0, dtype=np.float64) for part in parts) / count
    variance = sum(np.square(part - mean).sum(axis=0) for part in parts) / count
    return mean.astype(np.float32), variance.astype(np.float32)
