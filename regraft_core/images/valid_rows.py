"""Applies a function to the rows of a batch inside a graph, and skips the rows it fails for.

A graph cannot catch the error of an operation, but a dataset can skip elements that fail; the
indices of the remaining elements show which ones are missing. Of a batch of one, it costs less than
a millisecond.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

THREADS = 4
Rows = tuple[tf.Tensor, ...]


def map_valid_rows(
    function: Callable[[Rows], tf.Tensor], rows: Rows, spec: tf.TensorSpec
) -> tuple[tf.Tensor, tf.Tensor]:
    """Apply `function` to each row.

    Args:
        function: from a tuple with one row of each tensor to a tensor.
        rows: tensors of the same length n.
        spec: shape and type of the function's result.

    Returns:
        The indices of the k rows that the function did not fail for, int32 `[k]`, ascending; and
        its results for them, `[k, ...]`.
    """
    count = tf.shape(rows[0])[0]
    dataset = tf.data.Dataset.from_tensor_slices((tf.range(count), *rows)).map(
        lambda index, *row: (index, tf.ensure_shape(function(row), spec.shape)),
        num_parallel_calls=THREADS,
        deterministic=True,
    )
    # A dataset without elements has no batch, so a first element that never fails is added.
    first = tf.data.Dataset.from_tensors((-1, tf.zeros(spec.shape, spec.dtype)))
    batches = first.concatenate(dataset.ignore_errors()).batch(tf.cast(count, tf.int64) + 1)
    indices, results = batches.with_options(_plain_options()).get_single_element()
    return indices[1:], results[1:]


def _plain_options() -> tf.data.Options:
    """Return options for a dataset of a single call: without tuning and optimization."""
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    return options
