"""Hidden files, and files that operating systems add to folders."""

from __future__ import annotations

_NAMES = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini"})


def is_system_file(name: str) -> bool:
    """Return whether a file or folder is hidden or was added by an operating system."""
    return name.startswith(".") or name in _NAMES
