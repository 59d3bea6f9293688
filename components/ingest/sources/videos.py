"""Videos, which are refused with the way to images."""

from __future__ import annotations

_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".mts",
    ".3gp",
)  # fmt: skip


def is_video(name: str) -> bool:
    """Return whether a name has the suffix of a video."""
    return name.lower().endswith(_SUFFIXES)


def describe_video(name: str) -> str:
    """Return what to do with a video."""
    return (
        f"{name} is a video, which is not read; extract frames, such as by `ffmpeg -i VIDEO -vf "
        "fps=1 CLASS/VIDEO-%05d.jpg`, and keep those of a video in one split by a table with a "
        "column `group`"
    )
