"""When a call is tried again: only what is UNAVAILABLE, a bounded number of times, jittered."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from serving.client.errors import ConnectionFailedError, ServingClientError, UnavailableError

RETRIED = (UnavailableError, ConnectionFailedError)


@dataclass(frozen=True)
class Retries:
    """`attempts` in all; before each further one a pause up to `first_s` times 2, 4, 8, ..."""

    attempts: int = 4
    first_s: float = 0.1
    longest_s: float = 2.0

    def pauses(self) -> Iterator[float]:
        """Yield the pause after each failed attempt that another one follows, in seconds."""
        for attempt in range(self.attempts - 1):
            longest = min(self.first_s * 2**attempt, self.longest_s)
            yield random.uniform(longest / 2, longest)  # noqa: S311 (spreads load, no secret)


NO_RETRIES = Retries(attempts=1)


def next_pause(pauses: Iterator[float], error: ServingClientError) -> float:
    """Return the pause before the next attempt, or raise `error` if there is none."""
    if not isinstance(error, RETRIED):
        raise error
    pause = next(pauses, None)
    if pause is None:
        raise error
    return pause
