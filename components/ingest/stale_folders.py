"""Folders of interrupted runs: hidden, next to their target, and removed by the next run.

A run holds a lock in its folder. The system releases it when all processes of the run have ended,
in whatever way, so a lock that can be acquired belongs to an interrupted run.
"""

from __future__ import annotations

import contextlib
import fcntl
import shutil
from collections.abc import Iterator
from pathlib import Path

from regraft_core.runtime.safe_files import lock_file

_LOCK = "running.lock"


@contextlib.contextmanager
def running_lock(work: Path) -> Iterator[None]:
    """Hold the lock in the working folder of this run."""
    with lock_file(work / _LOCK) as lock:
        # Some network file systems have no locks; stale folders are not removed there.
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def remove_stale_folders(target: Path, work: str) -> None:
    """Remove the folders that interrupted runs to the same target left next to it.

    Args:
        target: the output folder of the runs.
        work: name of the working folder in the folder of each run.
    """
    start = f".{target.name}."
    # Not by glob, because the target's name may contain special characters.
    siblings = target.parent.iterdir() if target.parent.is_dir() else ()
    for folder in [sibling for sibling in siblings if sibling.name.startswith(start)]:
        with contextlib.suppress(OSError), open(folder / work / _LOCK, "rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
