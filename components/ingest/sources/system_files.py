"""Hidden files, and files that operating systems and programs add to folders."""

from __future__ import annotations

SYSTEM_NAMES = frozenset(
    {
        "__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini",
        "$recycle.bin", "recycler", "system volume information",
        "@eadir", "#recycle", "#snapshot", "@tmp", "@recycle", "@recently-snapshot",
        "lost+found", "__pycache__",
    }
)  # fmt: skip


def is_system_file(name: str) -> bool:
    """Return whether a file or folder is hidden or was added by a system."""
    return name.startswith(".") or name.lower() in SYSTEM_NAMES
