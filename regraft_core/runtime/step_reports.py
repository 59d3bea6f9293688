"""What a step reports: lines for people on standard output, and events for the local run.

A local run names a file in the variable `REGRAFT_EVENTS`. Each event is one line of JSON, appended
by one write, so that parallel steps can share the file:

    {"event": "start", "step": "ingest"}
    {"event": "progress", "text": "ingest: 3 classes"}
    {"event": "done", "step": "ingest", "seconds": 1.2}
    {"event": "error", "step": "ingest", "code": 2, "message": "sources: expected ...",
     "may_pass": false}

`live` and `count` events carry the text of a counter, each second and each minute. Standard output
is never parsed: data can imitate any line there, but only this module writes events. On a cluster,
the process that repeats a failed step reads them, because `may_pass` says whether another attempt
with the same input may succeed. If the variable is not set, only lines are written.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from regraft_core.runtime.errors import RegraftError, may_pass
from regraft_core.runtime.printable import one_line

PROGRESS_MARK = "[regraft] "
ERROR_MARK = "[regraft:error:{code}] "
EVENTS_VARIABLE = "REGRAFT_EVENTS"
LIVE_EVERY_S, COUNT_EVERY_S = 1.0, 60.0
MAX_MESSAGE = 300
"""Largest length of the message of an unexpected exception; the log has all of it."""


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


def log_error(code: int, text: str) -> None:
    """Print an error in one line, with the exit code of the step."""
    _print(ERROR_MARK.format(code=code), text)


class ProgressReporter:
    """Counts the parts of long work: each second as an event, each minute as a line too.

    The time that is left is estimated from the speed so far. `total` may change meanwhile, and is
    None if it is not known.
    """

    def __init__(self, what: str, total: int | None) -> None:
        self._what, self.total = what, total
        self._clock, self._live_s, self._count_s = Clock(), 0.0, 0.0
        self._lock, self._done = threading.Lock(), 0

    def __call__(self, done: int) -> None:
        """Report that `done` of the total are done, if it is time for a report."""
        self._done = done
        seconds = self._clock.seconds
        if seconds - self._live_s < LIVE_EVERY_S and seconds - self._count_s < COUNT_EVERY_S:
            return
        text = one_line(f"{self._what}: {describe_count(done, self.total, seconds)}")
        if seconds - self._live_s >= LIVE_EVERY_S:
            self._live_s = seconds
            _send("live", text=text)
        if seconds - self._count_s >= COUNT_EVERY_S:
            self._count_s = seconds
            _print(PROGRESS_MARK, text)
            _send("count", text=text)

    def advance(self, count: int = 1) -> None:
        """Report that `count` more are done; several threads may do so."""
        with self._lock:
            self(self._done + count)


class ReportRelay:
    """Reports again what another process reports into a file, by `REGRAFT_EVENTS`.

    Args:
        path: the file, which need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._place = path, 0

    def __call__(self) -> None:
        """Report the progress that was added to the file."""
        with contextlib.suppress(FileNotFoundError), open(self._path, "rb") as file:
            file.seek(self._place)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._place += len(line)
                values = json.loads(line)
                if values["event"] in ("progress", "count"):
                    _print(PROGRESS_MARK, values["text"])
                _send(values.pop("event"), **values)


def describe_count(done: int, total: int | None, seconds: float) -> str:
    """Return what is done after some seconds, its speed, and the time that is left."""
    speed = f"{done / max(seconds, 1e-9):.1f} per second"
    if total is None:
        return f"{done} ({speed})"
    if not 0 < done < total:
        return f"{done} of {total} ({speed})"
    return f"{done} of {total} ({speed}, about {about_time(seconds * (total - done) / done)} left)"


def about_time(seconds: float) -> str:
    """Return a time to come in one unit, because it is an estimate."""
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if seconds < 100:
        return f"{max(round(seconds), 1)} s"
    return f"{minutes} min" if minutes < 100 else f"{hours} h"


@contextlib.contextmanager
def run_step(step: str) -> Iterator[None]:
    """Run the body of a step and report its start and its end.

    A `RegraftError` is reported in one line and ends the process with its exit code. Any other
    exception is a fault of the program: it is reported and raised, so that the log has its
    traceback.
    """
    clock = Clock()
    _print(PROGRESS_MARK, f"{step}: start")
    _send("start", step=step)
    try:
        yield
    except RegraftError as error:
        log_error(error.exit_code, f"{step}: {error}")
        _send("error", step=step, code=error.exit_code, message=one_line(error),
              may_pass=may_pass(error))  # fmt: skip
        sys.exit(error.exit_code)
    except Exception as error:
        message = one_line(f"{type(error).__name__}: {error}")
        if len(message) > MAX_MESSAGE:
            message = f"{message[:MAX_MESSAGE]} ..."
        log_error(1, f"{step}: {message}")
        _send("error", step=step, code=1, message=message, may_pass=True)
        raise
    _print(PROGRESS_MARK, f"{step}: done in {clock.seconds:.1f} s")
    _send("done", step=step, seconds=round(clock.seconds, 3))


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
