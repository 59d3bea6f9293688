"""Where requests are computed: a bounded pool of threads, off the event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from serving.server.status import Code, ServingError

Result = TypeVar("Result")


class Workers:
    """Runs functions in threads; refuses what would wait behind too many others."""

    def __init__(self, threads: int = 64, max_waiting: int = 4096) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="request")
        self._limit = threads + max_waiting
        self._taken = 0

    async def run(self, work: Callable[[], Result], deadline_s: float | None = None) -> Result:
        """Return `work()`; work that has not begun when its caller leaves is dropped.

        Raises:
            ServingError: UNAVAILABLE if too many wait, DEADLINE_EXCEEDED after `deadline_s`.
        """
        if self._taken >= self._limit:
            raise ServingError(Code.UNAVAILABLE, "too many requests are waiting")
        end = None if deadline_s is None else time.monotonic() + deadline_s

        def guarded() -> Result:
            if end is not None and time.monotonic() > end:
                raise ServingError(Code.DEADLINE_EXCEEDED, "the deadline passed before the run")
            return work()

        self._taken += 1
        try:
            future = asyncio.get_running_loop().run_in_executor(self._pool, guarded)
            async with asyncio.timeout(deadline_s):
                return await future
        except TimeoutError:
            raise ServingError(Code.DEADLINE_EXCEEDED, "the deadline passed") from None
        finally:
            self._taken -= 1

    def close(self) -> None:
        """Drop what waits and let the threads end."""
        self._pool.shutdown(wait=False, cancel_futures=True)
