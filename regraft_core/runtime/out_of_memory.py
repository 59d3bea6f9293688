"""What a step says when memory ran out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from regraft_core.runtime.errors import RegraftError


@contextlib.contextmanager
def out_of_memory_explained() -> Iterator[None]:
    """Turn an allocation that failed, on the processor or a GPU, into a hint. Also a decorator.

    Raises:
        RegraftError: memory ran out.
    """
    import tensorflow as tf

    try:
        yield
    except (MemoryError, tf.errors.ResourceExhaustedError) as error:
        raise RegraftError(
            "out of memory; a smaller --batch-size or --image-px needs less, and what is finished "
            "is kept where --work-dir is given"
        ) from error
