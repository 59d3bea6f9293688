"""The memory of requests: their bodies are refused, and their work waits, beyond a limit."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterator

from serving.server.deadline import remaining_s
from serving.server.protocol.status import Code, ServingError

_SMALL = 1 << 20
_FOR_SMALL = 1.25


class BodyMemory:
    """Counts the bytes of the bodies in flight. Thread-safe."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._lock = threading.Lock()

    def change(self, size: int) -> None:
        """Add `size` bytes, negative if they are freed."""
        with self._lock:
            self._held += size

    def fits(self, own: int, more: int) -> bool:
        """Return whether a body that holds `own` bytes may grow by `more`.

        A body alone always may. Some memory is left to small bodies, so that large ones do not
        keep them out.
        """
        limit = self._limit * (_FOR_SMALL if own + more <= _SMALL else 1)
        with self._lock:
            return self._held == own or self._held + more <= limit


class HeldBody:
    """The bytes that one request's body holds; `release` frees them and may be called again."""

    def __init__(self, memory: BodyMemory) -> None:
        self._memory = memory
        self._size = 0

    def grow(self, size: int) -> None:
        """Hold `size` bytes more.

        Raises:
            ServingError: UNAVAILABLE if the bodies of all requests would be too large.
        """
        if not self._memory.fits(self._size, size):
            raise ServingError(
                Code.UNAVAILABLE, "the bodies of the requests in progress fill the memory"
            )
        self._size += size
        self._memory.change(size)

    def release(self) -> None:
        """Free all bytes."""
        size, self._size = self._size, 0
        self._memory.change(-size)


class WorkMemory:
    """Lets work run while its estimated bytes fit below a limit, first come, first served.

    Work must not hold memory while it waits for more, or requests could wait for each other.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._held = 0
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def hold(self, size: int) -> Iterator[None]:
        """Hold `size` bytes for the block, at most the limit; wait until they are free.

        Raises:
            ServingError: DEADLINE_EXCEEDED if they are not free before the request's deadline.
        """
        size = min(size, self.limit)
        self._take(size)
        try:
            yield
        finally:
            with self._changed:
                self._held -= size
                self._changed.notify_all()

    def _take(self, size: int) -> None:
        ticket = object()
        with self._changed:
            self._waiting.append(ticket)
            try:
                if not self._changed.wait_for(
                    lambda: self._waiting[0] is ticket and self._held + size <= self.limit,
                    remaining_s(),
                ):
                    raise ServingError(
                        Code.DEADLINE_EXCEEDED, "the deadline passed while memory was in use"
                    )
                self._held += size
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()
