"""The threads that compute one operation of a served model."""

from __future__ import annotations

from regraft_core.runtime.machine import available_cores
from serving.server.config import BatchingConfig


def intra_op_threads(batching: BatchingConfig | None) -> int:
    """Return the number of threads; 0 is TensorFlow's choice, one for each core.

    If there is a batch for each core, a thread of its own computes it without waiting for others.
    Splitting every operation of a few milliseconds among all cores is then slower, also for a
    single request.
    """
    at_once = (batching or BatchingConfig()).num_batch_threads
    return 1 if at_once >= available_cores() else 0
