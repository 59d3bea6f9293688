"""Pauses between the attempts of a call.

gRPC's own retry policy and urllib3's were considered: gRPC's shares one deadline among all attempts
of a call, allows five at most and skips large requests, and there would be two rules for the two
protocols. This one rule is shorter than their settings.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass

from .errors import (
    BusyError,
    ConnectionFailedError,
    DeadlineError,
    RegraftClientError,
    UnavailableError,
)

RETRIED: tuple[type[RegraftClientError], ...] = (UnavailableError, BusyError, ConnectionFailedError)
_READY_PAUSE_S = 0.2


@dataclass(frozen=True)
class Retries:
    """How often a call that ends in one of `errors` is attempted, and the pauses in between.

    The longest pause before a retry is `first_s` times 1, 2, 4, ..., up to `longest_s`; the actual
    one is random, at least half of that.
    """

    attempts: int = 4
    first_s: float = 0.1
    longest_s: float = 2.0
    errors: tuple[type[RegraftClientError], ...] = RETRIED

    def pauses(self) -> Iterator[float]:
        """Yield the seconds to wait after each failed attempt but the last."""
        for number in range(self.attempts - 1):
            longest = min(self.first_s * 2**number, self.longest_s)
            yield random.uniform(longest / 2, longest)  # noqa: S311 (spreads load, no secret)


NO_RETRIES = Retries(attempts=1)


class ReadinessDeadline:
    """The pauses of `wait_ready`, until its time is over."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._end = time.monotonic() + seconds

    def pause_after(self, error: RegraftClientError) -> float:
        """Return the seconds to wait after a failed attempt.

        Raises:
            DeadlineError: no time is left for another attempt.
        """
        if time.monotonic() + _READY_PAUSE_S > self._end:
            text = f"the model was not ready within {self._seconds:g} s: {error}"
            raise DeadlineError(text) from error
        return _READY_PAUSE_S
