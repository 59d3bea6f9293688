"""A bounded pool of threads that computes requests, apart from the event loop."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

from serving.server.deadline import deadline_at
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

    async def run(
        self,
        work: Callable[[], Result],
        deadline_s: float | None = None,
        release: Callable[[], None] = lambda: None,
    ) -> Result:
        """Return `work()`; work that has not begun when its caller gives up is dropped.

        Work that has begun has the deadline of its request, see `serving.server.deadline`.

        Args:
            work: computed in a thread.
            deadline_s: seconds until its result is no longer of use.
            release: called when the work has ended or is dropped, even if its caller has left.

        Raises:
            ServingError: UNAVAILABLE if too much work is waiting, DEADLINE_EXCEEDED after
                `deadline_s`.
        """
        end = None if deadline_s is None else time.monotonic() + deadline_s
        abandoned = threading.Event()

        def guarded() -> _Outcome[Result]:
            try:
                if abandoned.is_set() or (end is not None and time.monotonic() > end):
                    raise ServingError(Code.DEADLINE_EXCEEDED, "the deadline passed before the run")
                with deadline_at(end):
                    return _Outcome(work())
            except Exception as error:
                return _Outcome(error=_without_frames(error))
            finally:
                release()
                with self._lock:
                    self._pending -= 1

        with self._lock:
            if self._pending >= self._limit:
                release()
                raise ServingError(Code.UNAVAILABLE, "too many requests are waiting")
            self._pending += 1
        future = asyncio.get_running_loop().run_in_executor(self._pool, guarded)
        try:
            async with asyncio.timeout(deadline_s):
                outcome = await asyncio.shield(future)
        except TimeoutError:
            raise ServingError(Code.DEADLINE_EXCEEDED, "the deadline passed") from None
        finally:
            abandoned.set()
            del future  # its outcome may have an error, whose frames have this function's values
        return outcome.unpack()

    def close(self) -> None:
        """Drop the waiting work and let the threads end."""
        self._pool.shutdown(wait=False, cancel_futures=True)


class _Outcome(Generic[Result]):
    """The value or the error of some work.

    An error that a future raises is kept by it, and keeps the frames that it passes through: the
    future, the error and the request's body would keep each other.
    """

    def __init__(self, value: Result | None = None, error: ServingError | None = None) -> None:
        self._value = value
        self._error = error

    def unpack(self) -> Result:
        """Return the value or raise the error; neither is kept."""
        value, error = self._value, self._error
        self._value = self._error = None
        if error is None:
            return value  # type: ignore[return-value]
        try:
            raise error
        finally:
            del error


def _without_frames(error: Exception) -> ServingError:
    """Return an error without the frames that it came through and the errors behind it."""
    found: ServingError
    if isinstance(error, ServingError):
        found = error
    elif isinstance(error, MemoryError):
        found = ServingError(Code.RESOURCE_EXHAUSTED, "not enough memory for this request")
    else:
        print("".join(traceback.format_exception(error)), file=sys.stderr, flush=True)
        found = ServingError(Code.INTERNAL, f"unexpected error: {type(error).__name__}")
    for one in (error, found):
        one.__traceback__ = one.__cause__ = one.__context__ = None
    return found
