"""How a step speaks to whoever runs it: one line of progress, one line of error, an exit code.

Lines start with a mark, so that a local run can pick them out of a step's log.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator

from components.core.errors import RegraftError

PROGRESS_MARK = "[regraft] "
ERROR_MARK = "[regraft:error:{code}] "


class Clock:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Wall time so far, in seconds."""
        return time.perf_counter() - self._start


def say(text: str) -> None:
    """Print one line of progress."""
    print(f"{PROGRESS_MARK}{text}", flush=True)


@contextlib.contextmanager
def running(step: str) -> Iterator[None]:
    """Run the body of a step: an error of ours ends the process in one line and its exit code.

    Any other exception passes, with its traceback, as it is a fault of the program.
    """
    clock = Clock()
    say(f"{step}: start")
    try:
        yield
    except RegraftError as error:
        line = " ".join(str(error).split())
        print(f"{ERROR_MARK.format(code=error.exit_code)}{step}: {line}", flush=True)
        sys.exit(error.exit_code)
    say(f"{step}: done in {clock.seconds:.1f} s")
