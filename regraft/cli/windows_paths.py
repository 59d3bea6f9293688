"""Paths of Windows among the words of a command, on a system that has none."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from regraft_core.runtime.errors import InputError

# With backslashes or slashes, or without: shells remove backslashes from words without quotes.
_DRIVE = re.compile(
    r"(?:--[\w-]+=)?(?P<path>(?P<drive>[A-Za-z]):(?P<rest>[\\/].*|(?<=[A-Z]:)[A-Za-z].*))"
)
_SHARE = re.compile(r"(?:--[\w-]+=)?(?P<path>\\\\[^\\].*)")


def check_paths(words: Iterable[str]) -> None:
    """Refuse paths of Windows with the same path under WSL.

    Raises:
        InputError: a word is one, and not a file of this system.
    """
    if os.name != "posix":
        return
    for word in words:
        if (found := _DRIVE.fullmatch(word)) and not Path(found["path"]).exists():
            rest = found["rest"].replace("\\", "/")
            under = f"it is /mnt/{found['drive'].lower()}{rest}" if rest.startswith("/") else (
                f"write /mnt/{found['drive'].lower()}/... with slashes"
            )  # fmt: skip
        elif (found := _SHARE.fullmatch(word)) and not Path(found["path"]).exists():
            under = "mount the share"
        else:
            continue
        raise InputError(
            f"{found['path']}: expected a path of this system, got one of Windows; "
            f"under WSL, {under}"
        )
