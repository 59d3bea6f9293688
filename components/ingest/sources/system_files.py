"""What operating systems leave between images, and everything hidden."""

from __future__ import annotations

_NAMES = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini"})


def is_ignored(name: str) -> bool:
    """Tell whether a file or folder is an operating system's litter or hidden."""
    return name.startswith(".") or name in _NAMES
