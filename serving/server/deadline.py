"""The deadline of the request that a thread computes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextvars import ContextVar

_END: ContextVar[float | None] = ContextVar("end of the request", default=None)


@contextlib.contextmanager
def deadline_at(end: float | None) -> Iterator[None]:
    """Set the deadline of this thread for the block, on the clock of `time.monotonic`."""
    token = _END.set(end)
    try:
        yield
    finally:
        _END.reset(token)


def remaining_s() -> float | None:
    """Return the seconds that are left, at least 0; None without a deadline."""
    end = _END.get()
    return None if end is None else max(end - time.monotonic(), 0.0)
