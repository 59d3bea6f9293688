"""A queue between requests and a thread: full, it refuses instead of waiting."""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

Item = TypeVar("Item")


class BoundedQueue(Generic[Item]):
    """Holds items up to a number and up to a size in bytes. Thread-safe."""

    def __init__(self, max_items: int, max_bytes: int) -> None:
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._items: deque[tuple[Item, int]] = deque()
        self._bytes = 0
        self._closed = False
        self._changed = threading.Condition()

    def offer(self, item: Item, size: int) -> bool:
        """Add an item of `size` bytes; return False if it does not fit or the queue is closed."""
        with self._changed:
            full = len(self._items) >= self._max_items or self._bytes + size > self._max_bytes
            if full or self._closed:
                return False
            self._items.append((item, size))
            self._bytes += size
            self._changed.notify()
            return True

    def take(self, timeout_s: float | None = None) -> Item | None:
        """Return the oldest item; None if there is none in time, or the queue has ended."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._closed, timeout_s)
            if not self._items:
                return None
            item, size = self._items.popleft()
            self._bytes -= size
            return item

    @property
    def ended(self) -> bool:
        """Whether the queue is closed and empty."""
        with self._changed:
            return self._closed and not self._items

    def close(self) -> None:
        """Refuse further items; those in the queue can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
