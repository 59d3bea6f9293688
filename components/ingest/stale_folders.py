"""What a killed run leaves: a hidden folder beside its target, that the next run removes.

A run holds a lock in its folder. The system lets go of it when the run's processes have ended,
however they did, so a lock that can be had tells a dead run from one that is still at work.
"""

from __future__ import annotations

import contextlib
import fcntl
import shutil
from collections.abc import Iterator
from pathlib import Path

_LOCK = "running.lock"


@contextlib.contextmanager
def marked_as_running(work: Path) -> Iterator[None]:
    """Hold the lock in the working folder of this run."""
    with open(work / _LOCK, "wb") as lock:
        # Some network file systems have no locks; there, leftovers stay.
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def remove_leftovers(target: Path, work: str) -> None:
    """Remove the folders that killed runs to the same target left beside it.

    Args:
        target: where the runs were to write.
        work: name of the working folder in each run's own.
    """
    start = f".{target.name}."
    # Not by glob, as the target's name may have characters that mean something to it.
    siblings = target.parent.iterdir() if target.parent.is_dir() else ()
    for folder in [sibling for sibling in siblings if sibling.name.startswith(start)]:
        with contextlib.suppress(OSError), open(folder / work / _LOCK, "rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
