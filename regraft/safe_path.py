"""Keeps Python from importing modules of the folder in which `regraft` is started.

A folder of the user's may be called `serving`, `components` or `regraft_core`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path


def ignore_current_folder() -> None:
    """Remove the current folder from the module search path, also for processes started later.

    If the current folder is the checkout that this package runs from, it stays.
    """
    try:
        current = Path.cwd()
    except FileNotFoundError:  # deleted meanwhile
        return
    if current == Path(__file__).resolve().parents[1]:
        return
    sys.path[:] = _without(current, sys.path)
    os.environ["PYTHONSAFEPATH"] = "1"
    if paths := os.environ.get("PYTHONPATH"):
        os.environ["PYTHONPATH"] = os.pathsep.join(_without(current, paths.split(os.pathsep)))


def _without(current: Path, paths: Iterable[str]) -> list[str]:
    return [path for path in paths if path and Path(path).absolute() != current]
