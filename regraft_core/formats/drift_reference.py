"""The reference of a model: what its validation images look like, to detect drift later.

It is a file of plain arrays in the exported model, next to the warm-up requests, so servers ignore
it and the fingerprint covers it.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regraft_core.runtime.errors import InputError

REFERENCE_FILE = "assets.extra/drift_reference.npz"
MAX_AXES = 8
MAX_HALF = float(np.finfo(np.float16).max)
# Of a file that is read, far above those of files that are written.
_MAX_IMAGES, _MAX_BYTES = 10_000, 1 << 26
_KINDS = {"predicted": "i", "class_counts": "i"}  # of dtypes; all other arrays are of floats


@dataclass(frozen=True)
class DriftReference:
    """A sample of n validation images, and what is known of all of them.

    Attributes:
        features: pooled features, float16 [n, width]; infinite ones are the largest number.
        predicted: predicted class of each image, int32 [n], by weights that have not seen it.
        familiarity: OOD score of each image, float32 [n]; NaN without a detector.
        threshold: the score from which an image is in-distribution; NaN without a detector.
        mean: of the features, float32 [width].
        axes: the axes of the largest variance, times their standard deviation, float32
            [k, width]: a sketch of the covariance, of which `axes.T @ axes` is the best of rank k.
        class_counts: true classes of all validation images, int64 [classes].
    """

    features: NDArray[np.float16]
    predicted: NDArray[np.int32]
    familiarity: NDArray[np.float32]
    threshold: NDArray[np.float32]
    mean: NDArray[np.float32]
    axes: NDArray[np.float32]
    class_counts: NDArray[np.int64]

    def write(self, folder: str | os.PathLike[str]) -> int:
        """Write the file into the folder of an exported model; return its size in bytes."""
        path = Path(folder) / REFERENCE_FILE
        path.parent.mkdir(exist_ok=True)
        np.savez(path, allow_pickle=False, **vars(self))
        return path.stat().st_size

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> DriftReference:
        """Read the file of an exported model.

        Raises:
            InputError: there is none, or it is damaged.
        """
        path = Path(folder) / REFERENCE_FILE
        if not path.is_file():
            raise InputError(
                f"{folder}: expected a drift reference, found none: the model was exported by an "
                "earlier version or with --drift-images 0; export it again"
            )
        try:
            with zipfile.ZipFile(path) as archive:
                size = sum(one.file_size for one in archive.infolist())
            if size > _MAX_BYTES:
                raise InputError(f"{path}: expected at most {_MAX_BYTES} bytes, got {size}")
            with np.load(path, allow_pickle=False) as arrays:
                found = cls(**{field.name: arrays[field.name] for field in fields(cls)})
        except (OSError, ValueError, KeyError, zipfile.BadZipFile, zlib.error, EOFError,
                MemoryError) as error:  # fmt: skip
            raise InputError(f"{path}: expected a drift reference: {error}") from error
        found._check(path)
        return found

    def _check(self, path: Path) -> None:
        """Check types, shapes and values: a file may come from anyone.

        Raises:
            InputError: they are not those of a reference.
        """
        for field in fields(self):
            kind = getattr(self, field.name).dtype.kind
            if kind != (expected := _KINDS.get(field.name, "f")):
                raise InputError(f"{path}: {field.name}: expected the kind {expected!r} of dtypes, "
                                 f"got {kind!r}")  # fmt: skip
        count, width = self.features.shape if self.features.ndim == 2 else (0, 0)
        shapes: dict[str, tuple[int, ...]] = {
            "predicted": (count,), "familiarity": (count,), "mean": (width,), "threshold": (),
            "axes": (*self.axes.shape[:1], width), "class_counts": (self.class_counts.size,),
        }  # fmt: skip
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise InputError(f"{path}: {name}: expected shape {list(shape)}, got "
                                 f"{list(getattr(self, name).shape)}")  # fmt: skip
        classes = len(self.class_counts)
        if not count or self.predicted.min() < 0 or self.predicted.max() >= classes:
            raise InputError(f"{path}: expected predictions of {classes} classes")
        if count > _MAX_IMAGES:
            raise InputError(f"{path}: expected at most {_MAX_IMAGES} images, got {count}")
        for name in ("features", "mean", "axes"):
            if not np.isfinite(getattr(self, name)).all():
                raise InputError(f"{path}: {name}: expected finite numbers")


def make_reference(
    features: NDArray[Any],
    predicted: NDArray[Any],
    familiarity: NDArray[Any],
    threshold: float,
    class_counts: NDArray[Any],
) -> DriftReference:
    """Return the reference of validation images; see `DriftReference`.

    Args:
        features: [n, width], float32.
        predicted: [n].
        familiarity: [n]; NaN without a detector.
        threshold: NaN without a detector.
        class_counts: [classes].
    """
    values = features.astype(np.float32)
    mean = values.mean(axis=0)
    centered = (values - mean).astype(np.float64)
    # Of images or of features, the products of what there is less of: their square is in memory.
    by_image = len(centered) < centered.shape[1]
    products = centered @ centered.T if by_image else centered.T @ centered
    squares, vectors = np.linalg.eigh(products / len(centered))
    order = np.argsort(squares)[::-1][: min(MAX_AXES, len(values) - 1)]
    kept = order[squares[order] > 1e-12 * max(float(squares[-1]), 1e-30)]
    if by_image:
        axes = vectors[:, kept].T @ centered / np.sqrt(len(centered))
    else:
        axes = vectors[:, kept].T * np.sqrt(squares[kept])[:, None]
    return DriftReference(
        features=to_half(values),
        predicted=predicted.astype(np.int32),
        familiarity=familiarity.astype(np.float32),
        threshold=np.array(threshold, np.float32),
        mean=mean,
        axes=_with_fixed_signs(axes).astype(np.float32),
        class_counts=class_counts.astype(np.int64),
    )


def to_half(values: NDArray[Any]) -> NDArray[np.float16]:
    """Return values as float16, little-endian, without infinities."""
    return np.clip(values, -MAX_HALF, MAX_HALF).astype("<f2")


def _with_fixed_signs(axes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return axes [k, width] whose largest value is positive, as their signs are arbitrary."""
    if not axes.size:
        return axes
    largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, None], axis=1)
    return axes * np.where(largest < 0, -1.0, 1.0)
