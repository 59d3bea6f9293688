"""What a step reports: lines for people on standard output, and events for the local run.

A local run names a file in the variable `REGRAFT_EVENTS`. Each event is one line of JSON, appended
by one write, so that parallel steps can share the file:

    {"event": "start", "step": "ingest"}
    {"event": "progress", "text": "ingest: 3 classes"}
    {"event": "done", "step": "ingest", "seconds": 1.2}
    {"event": "error", "step": "ingest", "code": 2, "message": "sources: expected ..."}

`live` and `count` events carry the text of a counter, each second and each minute. Standard output
is never parsed: data can imitate any line there, but only this module writes events. If the
variable is not set, as on a cluster, only lines are written.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from typing import Protocol

from regraft_core.runtime.errors import RegraftError
from regraft_core.runtime.printable import one_line

PROGRESS_MARK = "[regraft] "
ERROR_MARK = "[regraft:error:{code}] "
EVENTS_VARIABLE = "REGRAFT_EVENTS"
LIVE_EVERY_S, COUNT_EVERY_S = 1.0, 60.0


class Clock:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Wall time so far, in seconds."""
        return time.perf_counter() - self._start


def log_progress(text: str) -> None:
    """Report one line of progress."""
    _print(PROGRESS_MARK, text)
    _send("progress", text=one_line(text))


class ProgressReporter:
    """Counts the images of a long pass: each second as an event, each minute as a line too."""

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total = what, total
        self._clock, self._live_s, self._count_s = Clock(), 0.0, 0.0

    def __call__(self, done: int) -> None:
        """Report that `done` of the total are done, if it is time for a report."""
        seconds = self._clock.seconds
        text = f"{self._what}: {done} of {self._total} ({done / max(seconds, 1e-9):.1f} per second)"
        if seconds - self._live_s >= LIVE_EVERY_S:
            self._live_s = seconds
            _send("live", text=one_line(text))
        if seconds - self._count_s >= COUNT_EVERY_S:
            self._count_s = seconds
            _print(PROGRESS_MARK, text)
            _send("count", text=one_line(text))


class EarlierAttempts(Protocol):
    """What earlier attempts of the same task have found."""

    def find(self) -> RegraftError | None:
        """Return the error that every attempt meets."""

    def leave(self, error: Exception) -> None:
        """Leave an error for the attempts that follow, if every attempt meets it."""


@contextlib.contextmanager
def run_step(step: str, earlier: EarlierAttempts | None = None) -> Iterator[None]:
    """Run the body of a step and report its start and its end.

    A `RegraftError` is reported in one line and ends the process with its exit code. Any other
    exception is a fault of the program: it is reported and raised, so that the log has its
    traceback.

    Args:
        step: name of the step.
        earlier: the earlier attempts, on a cluster; after one with an invalid input the step ends
            at once, with the same error.
    """
    clock = Clock()
    _print(PROGRESS_MARK, f"{step}: start")
    _send("start", step=step)
    try:
        if earlier is not None and (found := _found(earlier)):
            log_progress(f"{step}: not run again, because the input was invalid before")
            raise found
        yield
    except RegraftError as error:
        if earlier is not None:
            with contextlib.suppress(RegraftError):  # a retry then finds the error itself
                earlier.leave(error)
        _print(ERROR_MARK.format(code=error.exit_code), f"{step}: {error}")
        _send("error", step=step, code=error.exit_code, message=one_line(error))
        sys.exit(error.exit_code)
    except Exception as error:
        message = f"{type(error).__name__}: {error} (the log has the traceback)"
        _send("error", step=step, code=1, message=one_line(message))
        raise
    _print(PROGRESS_MARK, f"{step}: done in {clock.seconds:.1f} s")
    _send("done", step=step, seconds=round(clock.seconds, 3))


def _found(earlier: EarlierAttempts) -> RegraftError | None:
    with contextlib.suppress(RegraftError):  # the step itself reports a store that cannot be read
        return earlier.find()
    return None


def _print(mark: str, text: str) -> None:
    print(f"{mark}{one_line(text)}", flush=True)


def _send(event: str, **values: object) -> None:
    """Append one event to the local run's file, if there is one."""
    path = os.environ.get(EVENTS_VARIABLE)
    if not path:
        return
    line = json.dumps({"event": event, **values}) + "\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(descriptor, line.encode("ascii"))
    finally:
        os.close(descriptor)
