"""The rows of a training, read by index in an order that depends only on seed and epoch.

Under a `tf.distribute` strategy each replica reads its own part of every batch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from regraft_core.images.valid_rows import THREADS
from regraft_core.runtime.machine import available_cores

# Arrays of inputs [n, ...] (one, or a tuple of them), and labels int32 [n], or with several labels
# an image uint8 [n, classes].
Batch = tuple[Any, NDArray[Any]]
# (indices int64 [n], epoch) -> (inputs, labels)
Fetch = Callable[[NDArray[np.int64], int], Batch]


@dataclass(frozen=True)
class Resident:
    """All rows in memory: inputs [views * n, ...], view after view, and labels as of a `Batch`.

    The inputs are a tensor, or a tuple of them.
    """

    inputs: Any
    labels: tf.Tensor
    views: int = 1


@dataclass(frozen=True)
class Source:
    """Rows to train on: their number, how to fetch them by index, and the type of a batch.

    `prepare` turns fetched inputs into the model's input inside `tf.data`, where it runs in
    parallel to training. Rows that fit in memory are also `resident`, so that an epoch never leaves
    the graph: feeding a small head batch by batch takes longer than its training steps. With
    `several`, images have several labels.
    """

    count: int
    fetch: Fetch
    spec: Any
    prepare: Callable[[Any], tf.Tensor] | None = None
    resident: Resident | None = None
    several: bool = False


def epoch_order(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the order of an epoch: a permutation that depends only on seed and epoch."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def trace_prepare(source: Source) -> Source:
    """Return the source with `prepare` traced once, as a graph for the datasets of all epochs."""
    if source.prepare is None:
        return source
    traced = tf.function(source.prepare, input_signature=[source.spec])
    return dataclasses.replace(source, prepare=traced)


def batches(
    source: Source,
    order: NDArray[np.int64],
    epoch: int,
    size: int,
    class_weights: tuple[float, ...],
    progress: Callable[[int], None] = lambda done: None,
) -> Iterator[Any]:
    """Return prefetched batches in `order`, as an iterator that a graph can consume.

    `progress` is called with the number of fetched rows. A batch is (inputs, targets float32
    [n, classes], weights float32 [n], counted float32 [n]). Several replicas get equal parts of it,
    padded with a row that is not counted.
    """
    strategy = tf.distribute.get_strategy()
    replicas = strategy.num_replicas_in_sync
    by_class = tf.constant(class_weights, tf.float32)

    def of_worker(context: Any) -> tf.data.Dataset:
        local = replicas // context.num_input_pipelines
        own = range(context.input_pipeline_id * local, (context.input_pipeline_id + 1) * local)

        def generate() -> Iterator[Any]:
            for first in range(0, len(order), size):
                progress(first)
                for replica in own:
                    rows, counted = _replica_rows(order[first : first + size], replica, replicas)
                    yield *source.fetch(rows, epoch), counted

        def finish(inputs: Any, labels: tf.Tensor, counted: tf.Tensor) -> tuple[tf.Tensor, ...]:
            if source.prepare is not None:
                inputs = source.prepare(inputs)
            return inputs, *targets_of(labels, by_class), counted

        known = tf.TensorSpec([None], tf.int32)
        if source.several:
            known = tf.TensorSpec([None, len(class_weights)], tf.uint8)
        numbers = known, tf.TensorSpec([None], tf.float32)
        data = tf.data.Dataset.from_generator(generate, output_signature=(source.spec, *numbers))
        options = tf.data.Options()
        # The thread that tunes an iterator sleeps for up to a minute, and deleting an iterator that
        # a graph has not read to its end waits for it.
        options.autotune.enabled = False
        # The images of a batch are decoded by several threads.
        ahead = max(available_cores() // THREADS, 2)
        return data.map(finish, ahead).prefetch(ahead).with_options(options)

    return iter(strategy.distribute_datasets_from_function(of_worker))


def targets_of(labels: tf.Tensor, by_class: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the targets float32 [n, classes] of labels, and the weights float32 [n] of the rows.

    Labels are int32 [n], whose rows have the weights `by_class` [classes] of their classes, or with
    several labels an image uint8 [n, classes], whose rows weigh the same.
    """
    if labels.shape.rank == 2:
        return tf.cast(labels, tf.float32), tf.ones(tf.shape(labels)[:1])
    return tf.one_hot(labels, by_class.shape[0]), tf.gather(by_class, labels)


def _replica_rows(
    indices: NDArray[np.int64], replica: int, replicas: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return a replica's rows of a batch, equally many for all, and which of them are counted."""
    length = -(-len(indices) // replicas)
    rows = indices[replica * length : (replica + 1) * length]
    padding = np.repeat(indices[:1], length - len(rows))
    counted = np.repeat(np.array([1.0, 0.0], np.float32), [len(rows), len(padding)])
    return np.concatenate([rows, padding]), counted
