"""Runs rows of a training source through a part of a model, without training it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from regraft_core.runtime.step_reports import ProgressReporter
from regraft_core.training.training_source import Source

Forward = Callable[[Any], tf.Tensor]


def trace_forward(
    model: keras.Model, source: Source, finish: Callable[[list[Any]], tf.Tensor]
) -> Forward:
    """Return the graph from fetched inputs to one tensor [n, width], traced once for all splits.

    Args:
        model: what the prepared inputs go through.
        source: gives the type of the inputs.
        finish: makes one tensor of the model's outputs.
    """

    @tf.function(input_signature=[source.spec])
    def run(inputs: tf.Tensor) -> tf.Tensor:
        prepared = inputs if source.prepare is None else source.prepare(inputs)
        return finish(tf.nest.flatten(model(prepared, training=False)))

    return run


def compute_rows(
    forward: Forward, source: Source, indices: NDArray[np.int64], batch_size: int,
    progress: ProgressReporter,
) -> tuple[NDArray[np.float32], NDArray[Any]]:  # fmt: skip
    """Return the results [n, width] and labels of the rows at `indices`."""
    features, labels = [], []
    for first in range(0, len(indices), batch_size):
        inputs, known = source.fetch(indices[first : first + batch_size], 0)
        features.append(forward(tf.nest.map_structure(tf.constant, inputs)).numpy())
        labels.append(known)
        progress.advance(len(known))
    return np.concatenate(features), np.concatenate(labels)
