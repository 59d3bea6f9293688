"""A bounded pool of threads that computes requests, apart from the event loop."""

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
    """Runs functions in threads; refuses work if too much is waiting.

    Work that its caller has abandoned counts until a thread has taken it, so that callers who
    give up early and send again cannot fill the memory with waiting work.
    """

    def __init__(self, threads: int = 64, max_waiting: int = 4096) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="request")
        self._limit = threads + max_waiting
        self._pending = 0
        self._lock = threading.Lock()

    async def run(self, work: Callable[[], Result], deadline_s: float | None = None) -> Result:
        """Return `work()`; work that has not begun when its caller gives up is dropped.

        Work that has begun runs to its end, because TensorFlow's kernels cannot be interrupted;
        its result is discarded.

        Raises:
            ServingError: UNAVAILABLE if too much work is waiting, DEADLINE_EXCEEDED after
                `deadline_s`.
        """
        end = None if deadline_s is None else time.monotonic() + deadline_s
        abandoned = threading.Event()

        def guarded() -> Result:
            try:
                if abandoned.is_set() or (end is not None and time.monotonic() > end):
                    raise ServingError(Code.DEADLINE_EXCEEDED, "the deadline passed before the run")
                return work()
            finally:
                with self._lock:
                    self._pending -= 1

        with self._lock:
            if self._pending >= self._limit:
                raise ServingError(Code.UNAVAILABLE, "too many requests are waiting")
            self._pending += 1
        future = asyncio.get_running_loop().run_in_executor(self._pool, guarded)
        future.add_done_callback(_retrieve_error)
        try:
            async with asyncio.timeout(deadline_s):
                return await asyncio.shield(future)
        except TimeoutError:
            raise ServingError(Code.DEADLINE_EXCEEDED, "the deadline passed") from None
        finally:
            abandoned.set()

    def close(self) -> None:
        """Drop the waiting work and let the threads end."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _retrieve_error(future: asyncio.Future[Any]) -> None:
    """Retrieve the error of abandoned work, which asyncio would log otherwise."""
    if not future.cancelled():
        future.exception()
