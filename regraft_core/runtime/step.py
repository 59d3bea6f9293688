"""How a step speaks to whoever runs it: one line of progress, one line of error, an exit code.

Lines start with a mark, so that a local run can pick them out of a step's log.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from regraft_core.runtime.errors import RegraftError

PROGRESS_MARK = "[regraft] "
LIVE_MARK = "[regraft:live] "
ERROR_MARK = "[regraft:error:{code}] "
# Set where a person watches: a live line takes the place of the one before it.
LIVE_VARIABLE = "REGRAFT_LIVE"
LIVE_EVERY_S, PLAIN_EVERY_S = 1.0, 60.0

KEPT_FOLDER = "by_content"


class Clock:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Wall time so far, in seconds."""
        return time.perf_counter() - self._start


def log_progress(text: str) -> None:
    """Print one line of progress."""
    print(f"{PROGRESS_MARK}{text}", flush=True)


class ProgressReporter:
    """Says how far a long pass is: each second to a person who watches, each minute in a log."""

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total = what, total
        self._live = bool(os.environ.get(LIVE_VARIABLE))
        self._clock, self._told_s = Clock(), 0.0

    def __call__(self, done: int) -> None:
        """Tell that `done` of all are done, if the time has come."""
        seconds = self._clock.seconds
        if seconds - self._told_s < (LIVE_EVERY_S if self._live else PLAIN_EVERY_S):
            return
        self._told_s = seconds
        mark = LIVE_MARK if self._live else PROGRESS_MARK
        rate = f"{done / seconds:.1f} a second"
        print(f"{mark}{self._what}: {done} of {self._total} ({rate})", flush=True)


@contextlib.contextmanager
def run_step(step: str) -> Iterator[None]:
    """Run the body of a step: an error of ours ends the process in one line and its exit code.

    Any other exception passes, with its traceback, as it is a fault of the program.
    """
    clock = Clock()
    log_progress(f"{step}: start")
    try:
        yield
    except RegraftError as error:
        line = " ".join(str(error).split())
        print(f"{ERROR_MARK.format(code=error.exit_code)}{step}: {line}", flush=True)
        sys.exit(error.exit_code)
    log_progress(f"{step}: done in {clock.seconds:.1f} s")


def kept_folder(artifact: Any) -> Path:
    """Return the folder of what local runs keep by content, for an artifact as kfp places it."""
    return Path(artifact.path).parents[2] / KEPT_FOLDER


def keep_by_content(artifact: Any, digest: str) -> None:
    """Move what a local step wrote to a folder named by its content, and point the artifact there.

    kfp caches the steps after it by the place of their inputs. So equal content finds what was
    made of it, and other content does not, whatever made it and when. On a cluster an artifact
    must stay in the folder of its run, and does.

    Args:
        artifact: a kfp artifact; its folder stands three levels below that of all runs.
        digest: that of the content, as long as the name shall be.
    """
    if "://" in artifact.uri:
        return
    folder = Path(artifact.path)
    kept = kept_folder(artifact) / f"{folder.name}-{digest}"
    kept.parent.mkdir(exist_ok=True)
    if kept.exists():  # equal where the digest looks, but what it leaves out may be newer here
        old = kept.with_name(f".{kept.name}.{os.getpid()}")
        kept.rename(old)
        folder.rename(kept)
        shutil.rmtree(old)
    else:
        folder.rename(kept)
    artifact.uri = str(kept)
