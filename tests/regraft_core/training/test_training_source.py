"""Batches of a training source."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from regraft_core.training.training_source import Batch, Source, batches


def test_no_thread_tunes_the_input_of_a_training() -> None:
    """Deleting the iterator before its end would wait for its sleep, of up to a minute."""

    def fetch(indices: NDArray[np.int64], epoch: int) -> Batch:
        return indices.astype(np.float32)[:, None], (indices % 2).astype(np.int32)

    source = Source(10, fetch, tf.TensorSpec([None, 1], tf.float32))
    found = batches(source, np.arange(10)[::-1], 0, 4, (1.0, 1.0))
    rows = np.concatenate([inputs for inputs, *_ in found])
    assert rows[:, 0].tolist() == list(range(9, -1, -1))
    options = found._dataset.options()  # type: ignore[attr-defined]
    assert options.autotune.enabled is False
