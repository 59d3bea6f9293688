"""The error of a step that runs out of memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from regraft_core.runtime.errors import RegraftError


@contextlib.contextmanager
def explain_out_of_memory() -> Iterator[None]:
    """Turn a failed allocation, on the CPU or a GPU, into an error with a hint. Also a decorator.

    Raises:
        RegraftError: the memory is exhausted.
    """
    import tensorflow as tf

    try:
        yield
    except (MemoryError, tf.errors.ResourceExhaustedError) as error:
        raise RegraftError(
            "out of memory; use a smaller --batch-size or --image-px; with --work-dir, the next "
            "run resumes from what is finished"
        ) from error
