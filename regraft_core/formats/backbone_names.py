"""The names of backbones: of the table, `hub:` with a preset, or the path of a file or folder."""

from __future__ import annotations

from pathlib import PurePath

PREFIX = "hub:"
DIGEST_MARK = "#sha256="


def short_name(name: str) -> str:
    """Return a backbone's name without the folders of this machine, and without its digest."""
    location = name.partition(DIGEST_MARK)[0]
    prefix = PREFIX if location.startswith(PREFIX) else ""
    rest = location.removeprefix(PREFIX).rstrip("/")
    return prefix + (PurePath(rest).name if "/" in rest else rest)
