"""How far an image's features are from those of the training images.

The logits do not show it: they are sums of many features, so they can be large for an image of none
of the classes. The features that are compared are the averages of all levels, whichever the head
reads, because the lower ones separate most. The distance has two parts: on the principal axes of
the training features Mahalanobis' distance to the nearest class (Lee et al. 2018), and the length
of what the axes do not explain (as in ViM, Wang et al. 2022). Each part is divided by its mean over
validation images, which the axes have not seen.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from regraft_core.formats.array_file import read_arrays, write_arrays
from regraft_core.formats.manifests.features import Level
from regraft_core.training.linear_head.head_rows import HeadRows, scalings
from regraft_core.training.linear_head.linear_problem import principal_axes

Floats = NDArray[np.float32]
DETECTOR_FILE = "ood_detector.npz"
SCORE = "feature_distance"
# Rows that a detector is fitted to, and values of their features.
MAX_ROWS, MAX_VALUES = 1000, 1 << 24
# Axes, and values of the axes: they are constants of the exported graph.
MAX_AXES, MAX_AXIS_VALUES = 64, 1 << 18
# Training rows for each axis, and for each class that has a mean of its own.
ROWS_PER_AXIS, ROWS_PER_CLASS = 4, 2


@dataclass(frozen=True)
class OodDetector:
    """The distance, as arrays of float32, and the scores of the validation images [m].

    `layers` are the model's layers that it reads, one after another: feature maps, which are
    averaged, or features. They are scaled by `shift` and `factor` [width], projected on the
    orthonormal columns of `basis` [width, k] and whitened by `whitening` [k, k]; `means`
    [classes, k] are those of the classes there. `spread` [2] are the mean of both parts of the
    distance over validation images.
    """

    layers: tuple[str, ...]
    shift: Floats
    factor: Floats
    basis: Floats
    whitening: Floats
    means: Floats
    spread: Floats
    validation_scores: Floats

    def inputs(self, model: keras.Model) -> list[Any]:
        """Return the tensors of `model` that `scores` takes."""
        return [model.get_layer(name).output for name in self.layers]

    def scores(self, outputs: Sequence[Any]) -> Any:
        """Return the scores float32 [n] of the outputs of the layers, the higher the more similar.

        A score is the negative distance; that of validation images is -1 on average.
        """
        return self._graph(average_maps(outputs))

    @functools.cached_property
    def _graph(self) -> Callable[[Any], Any]:
        """The computation, traced once, so that the signatures of a model share its constants."""

        @tf.function(input_signature=[tf.TensorSpec([None, len(self.shift)], tf.float32)])
        def scores(features: tf.Tensor) -> tf.Tensor:
            return -tf.reduce_mean(self.parts(features) / self.spread, axis=1)

        return scores

    def parts(self, features: tf.Tensor) -> tf.Tensor:
        """Return both parts of the squared distance, [n, 2]."""
        scaled = (features - self.shift) * self.factor
        basis = tf.constant(self.basis)
        inside = scaled @ basis
        places = tf.expand_dims(inside @ self.whitening, 1) - self.means
        nearest = tf.reduce_min(tf.reduce_sum(tf.square(places), axis=2), axis=1)
        rest = tf.reduce_sum(tf.square(scaled - tf.matmul(inside, basis, transpose_b=True)), axis=1)
        return tf.stack([nearest, rest], axis=1)

    def write(self, folder: str | os.PathLike[str]) -> str:
        """Write the file into `folder`; return its SHA-256."""
        arrays = {field.name: getattr(self, field.name) for field in fields(self)}
        return write_arrays(folder, DETECTOR_FILE, arrays)

    @classmethod
    def read(cls, folder: str | os.PathLike[str], digest: str | None) -> OodDetector | None:
        """Read the file of `folder`; None if the model's manifest has no digest of it.

        Raises:
            InputError: it is missing, or does not have the digest.
        """
        if digest is None:
            return None
        arrays = read_arrays(folder, DETECTOR_FILE, digest)
        found: dict[str, Any] = {field.name: arrays[field.name] for field in fields(cls)}
        return cls(**found | {"layers": tuple(found["layers"].tolist())})


def average_maps(outputs: Sequence[Any]) -> Any:
    """Return feature maps [n, h, w, c], averaged, and features [n, c] as one tensor [n, width]."""
    averaged = [
        tf.reduce_mean(tf.cast(one, tf.float32), axis=list(range(1, len(one.shape) - 1)))
        for one in outputs
    ]
    return tf.concat(averaged, axis=1)


def detector_layers(levels: Sequence[Level]) -> dict[str, int]:
    """Return the layers to read of stored levels, whose averages come first, with their widths."""
    return {level.layer: level.width for level in levels if level.pooling == "average"}


def detector_sample(count: int, width: int, seed: int) -> NDArray[np.int64]:
    """Return sorted indices of the rows to fit a detector to, of so many rows of features."""
    limit = min(MAX_ROWS, MAX_VALUES // width)
    return np.sort(np.random.default_rng(seed).permutation(count)[:limit])


def fit_ood_detector(
    layers: Mapping[str, int], rows: NDArray[Any], labels: NDArray[np.integer],
    held_out: NDArray[Any],
) -> OodDetector | None:  # fmt: skip
    """Fit a detector to features of training images, and its scale to those of others.

    Args:
        layers: names of the layers, with the number of features of each.
        rows: features [n, width] of training images.
        labels: their classes, int [n]; those of images with several, [n, k], are not used, because
            such an image is near the mean of none of its classes.
        held_out: features [m, width] of validation images.

    Returns:
        None if there are too few images, or their features are all equal.
    """
    axes_limit = min(MAX_AXES, len(rows) // ROWS_PER_AXIS, MAX_AXIS_VALUES // rows.shape[1])
    if axes_limit < 1 or not len(held_out):
        return None
    values = rows.astype(np.float32)
    statistics = values.mean(axis=0), values.var(axis=0)
    known = labels.astype(np.int32) if labels.ndim == 1 else np.zeros(len(labels), np.int32)
    if len(known) < ROWS_PER_CLASS * len(np.unique(known)):
        known = np.zeros_like(known)
    widths = list(layers.values())
    scaling = scalings(HeadRows([], known, known.astype(np.int64), *statistics, widths))["level"]
    scaled = scaling.apply(values)
    basis = principal_axes(scaled).longest(axes_limit).basis
    if not basis.size:
        return None
    inside = (scaled @ basis).astype(np.float64)
    present = np.unique(known)
    means = np.stack([inside[known == label].mean(axis=0) for label in present])
    deviations = inside - means[np.searchsorted(present, known)]
    whitening = _whitening(deviations, len(present))
    unscaled = OodDetector(
        layers=tuple(layers), shift=scaling.shift, factor=scaling.factor,
        basis=np.ascontiguousarray(basis), whitening=whitening,
        means=(means @ whitening).astype(np.float32),
        spread=np.ones(2, np.float32), validation_scores=np.empty(0, np.float32),
    )  # fmt: skip
    parts = unscaled.parts(held_out.astype(np.float32)).numpy()
    spread = parts.mean(axis=0)
    if not np.isfinite(spread).all() or not spread.all():
        return None
    return replace(unscaled, spread=spread, validation_scores=-(parts / spread).mean(axis=1))


def _whitening(deviations: NDArray[np.float64], classes: int) -> Floats:
    """Return the matrix that makes deviations from class means alike in all directions, [k, k].

    Their covariance is shrunk to a multiple of the identity, the more the fewer rows there are.
    """
    count, axes = deviations.shape
    free = max(count - classes, 1)
    covariance = deviations.T @ deviations / free
    weight = min(axes / free, 1.0)
    identity = np.eye(axes) * np.trace(covariance) / axes
    squares, vectors = np.linalg.eigh((1 - weight) * covariance + weight * identity)
    smallest = 1e-6 * max(float(squares[-1]), 1e-30)
    return (vectors / np.sqrt(np.maximum(squares, smallest))).astype(np.float32)
