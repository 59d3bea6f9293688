"""Which names of folders are versions of a published model, as TF Serving reads them."""

from __future__ import annotations

from collections.abc import Iterable

_END = 1 << 63  # TF Serving's versions are signed integers of 64 bits


def version_number(name: str) -> int | None:
    """Return the number of a version from the name of its folder, or None for another name.

    Only ASCII digits count: `str.isdigit` also accepts `²`, which is not a number.
    """
    if not (name.isascii() and name.isdigit()):
        return None
    digits = name.lstrip("0") or "0"
    # Python converts no more than some thousand digits.
    return int(digits) if len(digits) < 20 and int(digits) < _END else None


def version_names(names: Iterable[str]) -> dict[int, str]:
    """Return the names that are versions, by ascending number; of `1` and `01`, the shorter."""
    found: dict[int, str] = {}
    for name in sorted(names, key=len):
        if (number := version_number(name)) is not None:
            found.setdefault(number, name)
    return dict(sorted(found.items()))
