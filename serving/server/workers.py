"""Where requests are computed: a bounded pool of threads, off the event loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from serving.server.protocol.status import Code, ServingError

Result = TypeVar("Result")


class Workers:
    """Runs functions in threads; refuses what would wait behind too many others.

    Work whose caller has left counts until a thread is free of it, so that callers who leave early
    and come again cannot fill the memory with what waits.
    """

    def __init__(self, threads: int = 64, max_waiting: int = 4096) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="request")
        self._limit = threads + max_waiting
        self._taken = 0
        self._lock = threading.Lock()

    async def run(self, work: Callable[[], Result], deadline_s: float | None = None) -> Result:
        """Return `work()`; work that has not begun when its caller leaves is dropped.

        Work that has begun runs to its end, as TensorFlow's kernels cannot be interrupted; what
        it returns is thrown away.

        Raises:
            ServingError: UNAVAILABLE if too many wait, DEADLINE_EXCEEDED after `deadline_s`.
        """
        end = None if deadline_s is None else time.monotonic() + deadline_s
        left = threading.Event()

        def guarded() -> Result:
            try:
                if left.is_set() or (end is not None and time.monotonic() > end):
                    raise ServingError(Code.DEADLINE_EXCEEDED, "the deadline passed before the run")
                return work()
            finally:
                with self._lock:
                    self._taken -= 1

        with self._lock:
            if self._taken >= self._limit:
                raise ServingError(Code.UNAVAILABLE, "too many requests are waiting")
            self._taken += 1
        future = asyncio.get_running_loop().run_in_executor(self._pool, guarded)
        future.add_done_callback(_seen)
        try:
            async with asyncio.timeout(deadline_s):
                return await asyncio.shield(future)
        except TimeoutError:
            raise ServingError(Code.DEADLINE_EXCEEDED, "the deadline passed") from None
        finally:
            left.set()

    def close(self) -> None:
        """Drop what waits and let the threads end."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _seen(future: asyncio.Future[Any]) -> None:
    """Look at an error that nobody waits for any more, or asyncio would log it."""
    if not future.cancelled():
        future.exception()
