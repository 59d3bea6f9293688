"""Features on disk: one `.npy` file per dataset shard, view and array, read by memory mapping.

TensorFlow is imported only where rows become a training source, because reading them needs none.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from regraft_core.formats.manifest_storage import check_digest
from regraft_core.formats.manifests.dataset import Split
from regraft_core.formats.manifests.features import FeatureShard, FeaturesManifest, Level
from regraft_core.formats.records import NO_GROUP
from regraft_core.formats.stored_artifacts import content_file
from regraft_core.runtime.errors import InputError
from regraft_core.training.stored_part import StoredPart

if TYPE_CHECKING:
    from regraft_core.training.training_source import Batch, Resident, Source

LABELS, GROUPS = "label", "group"
CUT = "cut"
LEVELS = "levels"
# Rows up to this size are kept in memory for training; larger ones are read batch by batch.
RESIDENT_BYTES = 1 << 30
# Values summed at a time, which limits the memory for wide features.
MOMENTS_VALUES = 1 << 22
_FIX = "extract the features again"
SAME_FOR_ALL_WORKERS = (
    "dataset_digest", "classes", "labels_per_image", "backbone", "weights_digest", "image_px",
    "cut", "views", "augment", "flips", "seed", "dtype", "arrays", "levels", "shard_count",
)  # fmt: skip


def array_file(folder: str | os.PathLike[str], stem: str, array: str) -> Path:
    """Return the file of one array of one feature shard."""
    return Path(folder) / f"{stem}.{array}.npy"


def _load(folder: Path, shard: FeatureShard, array: str, *, in_memory: bool = False) -> Any:
    """Return one array of one shard, whose content is compared with its digest once.

    Raises:
        InputError: it does not exist, as in features of an earlier version, or has another content.
    """
    path = content_file(folder, array_file(folder, shard.stem, array).name)
    if array in shard.sha256:
        check_digest(path, shard.sha256[array], _FIX)
    elif not path.is_file():
        raise InputError(f"{path}: expected a file, found none; {_FIX}")
    return np.load(path, mmap_mode=None if in_memory else "r", allow_pickle=False)


def feature_folders(folder: str | os.PathLike[str]) -> list[Path]:
    """Return the workers' folders in an artifact with the features of a dataset.

    One worker writes the artifact itself; those of several are folders in it.

    Raises:
        InputError: there are none.
    """
    whole, name = Path(folder), FeaturesManifest.file_name
    if (whole / name).is_file():
        return [whole]
    if found := sorted(path.parent for path in whole.glob(f"*/{name}")):
        return found
    raise InputError(f"expected {name} in {whole}, found none; {_FIX}")


def read_manifests(folders: Sequence[str | os.PathLike[str]]) -> list[FeaturesManifest]:
    """Read the manifests of all workers' folders, in worker order.

    Raises:
        InputError: a worker is missing, or the folders come from different extractions.
    """
    manifests = sorted(
        (FeaturesManifest.read(folder) for folder in folders), key=lambda m: m.shard_index
    )
    if not manifests:
        raise InputError("expected at least one features folder, got none")
    first = manifests[0]
    for manifest in manifests:
        for field in SAME_FOR_ALL_WORKERS:
            expected, received = getattr(first, field), getattr(manifest, field)
            if expected != received:
                raise InputError(f"features differ in {field}: {expected!r} and {received!r}")
    workers = [manifest.shard_index for manifest in manifests]
    if workers != list(range(first.shard_count)):
        raise InputError(f"expected features of {first.shard_count} workers, got {workers}")
    return manifests


def number_groups(stored: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the numbers of groups [n], of 0..n-1: an image of no group is a group of its own."""
    alone = -1 - np.arange(len(stored))
    numbers = np.where(stored == NO_GROUP, alone, stored)
    return np.unique(numbers, return_inverse=True)[1].astype(np.int64)


def level_columns(manifest: FeaturesManifest, levels: Sequence[Level]) -> NDArray[np.int64]:
    """Return the columns of some levels in the array `levels`, int64 [width]."""
    ends = np.cumsum([level.width for level in manifest.levels])
    places = [manifest.levels.index(level) for level in levels]
    return np.concatenate([np.arange(ends[k] - manifest.levels[k].width, ends[k]) for k in places])


class FeatureRows:
    """One array of one split over all workers' folders, read by index from memory-mapped files.

    `labels` is int32 [n], or with several labels an image uint8 [n, classes]; each row exists once
    per view.
    """

    def __init__(
        self, folders: Sequence[str | os.PathLike[str]], split: Split, array: str, views: int = 1
    ) -> None:
        by_view = [_parts(folders, split, view) for view in range(views)]
        parts = by_view[0]
        self._by_view, self._array = by_view, array
        self._starts = np.cumsum([0] + [shard.count for _, shard in parts])
        self._maps: list[list[NDArray[np.floating]]] = [
            [_load(folder, shard, array) for folder, shard in each] for each in by_view
        ]
        self._parts = parts
        self.labels: NDArray[Any] = self._of_images(LABELS, np.int32)
        self.row_shape = self._maps[0][0].shape[1:] if parts else ()

    def __len__(self) -> int:
        return int(self._starts[-1])

    def groups(self) -> NDArray[np.int64]:
        """Return the number of each image's group, int64 [n], of 0..n-1.

        Images of a group, such as near duplicates, share it.
        """
        return number_groups(self._of_images(GROUPS, np.int64))

    def _of_images(self, array: str, dtype: Any) -> NDArray[Any]:
        """Return the value of each image, [n] or [n, classes]; with no image, [0] of `dtype`."""
        stored = [_load(folder, shard, array, in_memory=True) for folder, shard in self._parts]
        return np.concatenate(stored) if stored else np.zeros(0, dtype)

    def rows(self, indices: NDArray[np.int64], epoch: int = 0) -> NDArray[np.floating]:
        """Return the rows at `indices`; with several views, each epoch uses the next one."""
        views = len(self._maps)
        shards = np.searchsorted(self._starts, indices, side="right") - 1
        rows = np.empty((len(indices), *self.row_shape), self._maps[0][0].dtype)
        for number, (index, shard) in enumerate(zip(indices, shards, strict=True)):
            view = (epoch + int(index)) % views
            rows[number] = self._maps[view][shard][index - self._starts[shard]]
        return rows

    def parts(self) -> list[NDArray[np.floating]]:
        """Return all rows as stored, [m, width] of each shard, view after view."""
        return [array.reshape(len(array), -1) for view in self._maps for array in view]

    def stored_parts(self) -> list[StoredPart]:
        """Return the rows of `parts` without reading them."""
        width = math.prod(self.row_shape)
        return [
            StoredPart(
                str(folder.absolute()), array_file(folder, shard.stem, self._array).name,
                (shard.count, width), slice(0, shard.count),
            )
            for view in self._by_view for folder, shard in view
        ]  # fmt: skip

    @property
    def nbytes(self) -> int:
        """Size of all views on disk, in bytes."""
        return sum(array.nbytes for view in self._maps for array in view)

    def in_memory(self) -> Resident:
        """Read all rows, view after view."""
        import tensorflow as tf

        from regraft_core.training.training_source import Resident

        arrays = [array for view in self._maps for array in view]
        return Resident(
            tf.constant(np.concatenate(arrays)), tf.constant(self.labels), len(self._maps)
        )


def feature_source(
    rows: FeatureRows, others: FeatureRows | None = None, columns: Sequence[slice] = ()
) -> Source:
    """Return cached rows as a training source: float32 [n, ...].

    With `others`, an input is a tuple: the rows, and each of these columns of the other rows.
    """
    import tensorflow as tf

    from regraft_core.training.training_source import Source

    def fetch(indices: NDArray[np.int64], epoch: int) -> Batch:
        inputs = rows.rows(indices, epoch).astype(np.float32)
        if others is None:
            return inputs, rows.labels[indices]
        wide = others.rows(indices, epoch).astype(np.float32)
        return (inputs, *(wide[:, part] for part in columns)), rows.labels[indices]

    spec: Any = tf.TensorSpec([None, *rows.row_shape], tf.float32)
    nbytes = rows.nbytes
    if others is not None:
        widths = [part.stop - part.start for part in columns]
        spec = (spec, *(tf.TensorSpec([None, width], tf.float32) for width in widths))
        nbytes += others.nbytes
    resident = rows.in_memory() if nbytes <= RESIDENT_BYTES else None
    if resident is not None and others is not None:
        wide = others.in_memory().inputs
        inputs = (resident.inputs, *(wide[:, part] for part in columns))
        resident = dataclasses.replace(resident, inputs=inputs)
    several = rows.labels.ndim == 2
    return Source(len(rows), fetch, spec, resident=resident, several=several)


def moments(
    rows: FeatureRows, values: int = MOMENTS_VALUES
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return mean and variance of each feature over the first view, `values` of them at a time."""
    block = max(values // math.prod(rows.row_shape), 1)
    total = np.zeros(rows.row_shape, np.float64)
    squares = np.zeros(rows.row_shape, np.float64)
    for first in range(0, len(rows), block):
        part = rows.rows(np.arange(first, min(first + block, len(rows)))).astype(np.float64)
        total += part.sum(axis=0)
        squares += np.square(part).sum(axis=0)
    mean = total / len(rows)
    variance = np.maximum(squares / len(rows) - np.square(mean), 0.0)
    return mean.astype(np.float32), variance.astype(np.float32)


def _parts(
    folders: Sequence[str | os.PathLike[str]], split: Split, view: int
) -> list[tuple[Path, FeatureShard]]:
    """Return (folder, shard) of one view of a split, in the shard order of the dataset."""
    parts = [
        (Path(folder), shard)
        for folder in folders
        for shard in FeaturesManifest.read(folder).shards
        if shard.split == split and shard.view == view
    ]
    return sorted(parts, key=lambda part: part[1].stem)
