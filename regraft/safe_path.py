"""Keeps Python from importing modules of the folder in which `regraft` is started.

A folder of the user's may be called `serving`, `components` or `regraft_core`.
"""

from __future__ import annotations

import os
import sys
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
    sys.path[:] = [entry for entry in sys.path if entry and Path(entry).absolute() != current]
    os.environ["PYTHONSAFEPATH"] = "1"
