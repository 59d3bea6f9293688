"""When a call is tried again, and after which pause; the same for threads and for asyncio."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from regraft_client.errors import (
    ConnectionFailedError,
    DeadlineError,
    ServingClientError,
    UnavailableError,
)

RETRIED = (UnavailableError, ConnectionFailedError)
_READY_PAUSE_S = 0.2

Patience = Callable[[ServingClientError], float]
"""Takes the error of a failed attempt; returns the pause before the next in seconds, or raises."""


class Retrying(Protocol):
    """A rule by which a call is tried again."""

    def patience(self) -> Patience:
        """Begin a call."""


@dataclass(frozen=True)
class Retries:
    """Only what is UNAVAILABLE, `attempts` in all, jittered.

    The pause before each further attempt is up to `first_s` times 1, 2, 4, ...
    """

    attempts: int = 4
    first_s: float = 0.1
    longest_s: float = 2.0

    def patience(self) -> Patience:
        """Begin a call, as `Retrying.patience`."""
        pauses = iter([min(self.first_s * 2**n, self.longest_s) for n in range(self.attempts - 1)])

        def pause_after(error: ServingClientError) -> float:
            longest = next(pauses, None) if isinstance(error, RETRIED) else None
            if longest is None:
                raise error
            return random.uniform(longest / 2, longest)  # noqa: S311 (spreads load, no secret)

        return pause_after


@dataclass(frozen=True)
class Until:
    """Whatever the error, until `deadline_s` are over."""

    deadline_s: float

    def patience(self) -> Patience:
        """Begin a call, as `Retrying.patience`."""
        end = time.monotonic() + self.deadline_s

        def pause_after(error: ServingClientError) -> float:
            if time.monotonic() + _READY_PAUSE_S > end:
                text = f"the model was not ready within {self.deadline_s:g} s: {error}"
                raise DeadlineError(text) from error
            return _READY_PAUSE_S

        return pause_after


NO_RETRIES = Retries(attempts=1)
