"""The deadline of the request that a thread computes, and whether its client still waits."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from contextvars import ContextVar

_END: ContextVar[float | None] = ContextVar("end of the request", default=None)
_ABANDONED: ContextVar[threading.Event | None] = ContextVar("the client has left", default=None)


@contextlib.contextmanager
def deadline_at(end: float | None, abandoned: threading.Event | None = None) -> Iterator[None]:
    """Set the deadline of this thread for the block, on the clock of `time.monotonic`.

    Args:
        end: the deadline; None is no deadline.
        abandoned: set when the client no longer waits for the result.
    """
    tokens = _END.set(end), _ABANDONED.set(abandoned)
    try:
        yield
    finally:
        _END.reset(tokens[0])
        _ABANDONED.reset(tokens[1])


def remaining_s() -> float | None:
    """Return the seconds that are left, at least 0; None without a deadline."""
    end = _END.get()
    return None if end is None else max(end - time.monotonic(), 0.0)


def is_abandoned() -> bool:
    """Return whether the client of this thread's request no longer waits for it."""
    abandoned = _ABANDONED.get()
    return abandoned is not None and abandoned.is_set()
