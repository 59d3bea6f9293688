"""The one retry policy of all downloads, and the errors that it distinguishes.

FetchError (an InputError)   the URL does not provide the file; a mirror may
|-- UnreachableError         (also an UnavailableError) because all attempts failed
`-- (retried)                TransientError: timeouts, resets, 5xx, truncated bodies, Drive's quota
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)

from regraft_core.formats.options.ingest import IngestOptions
from regraft_core.runtime.errors import InputError, UnavailableError

MAX_WAIT_S = 60.0
T = TypeVar("T")


class FetchError(InputError):
    """A URL does not provide the file; another attempt will not help."""


class UnreachableError(FetchError, UnavailableError):
    """All attempts have failed; a later run of the step may succeed."""


class TransientError(Exception):
    """A failure that may pass. `retry_after_s` is the wait that the server requested, if any."""

    def __init__(self, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Deadline:
    """The time limit of a whole download, with all its attempts and mirrors."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._end = time.monotonic() + seconds

    @property
    def left_s(self) -> float:
        """Seconds left; 0 after the deadline."""
        return max(0.0, self._end - time.monotonic())

    def check(self) -> None:
        """Raise `FetchError` after the deadline."""
        if not self.left_s:
            raise UnreachableError(f"the download exceeded its deadline of {self._seconds:g} s")


def with_retries(
    action: Callable[[], T],
    options: IngestOptions,
    deadline: Deadline,
    repeated: Callable[[], None] = lambda: None,
) -> T:
    """Run `action` again after each `TransientError`, with exponential, jittered waits.

    Args:
        action: one attempt.
        options: the number of attempts, and the waits.
        deadline: time limit of all attempts.
        repeated: called before each further attempt.

    Raises:
        FetchError: `action` raised it, the last attempt failed, or the deadline passed.
    """
    attempts = options.download_attempts
    # Full jitter: the clients of a server that failed do not all return at the same moment.
    backoff = wait_random_exponential(multiplier=options.download_backoff_s, max=MAX_WAIT_S)

    def wait_s(state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        requested_s = getattr(error, "retry_after_s", 0.0)
        return min(max(requested_s, backoff(state)), MAX_WAIT_S, deadline.left_s)

    retrying = Retrying(
        retry=retry_if_exception_type(TransientError), stop=stop_after_attempt(attempts),
        wait=wait_s, before=lambda _: deadline.check(), before_sleep=lambda _: repeated(),
        reraise=True,
    )  # fmt: skip
    try:
        return retrying(action)
    except TransientError as error:
        suffix = f" ({attempts} attempts)" if attempts > 1 else ""
        raise UnreachableError(f"{error}{suffix}") from error
