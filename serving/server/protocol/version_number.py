"""Numbers of versions in requests."""

from __future__ import annotations

from serving.server.protocol.status import invalid

_MAX_VERSION = (1 << 63) - 1


def parse_version(digits: str) -> int:
    """Return the number that ASCII digits write.

    Raises:
        ServingError: INVALID_ARGUMENT above 63 bits.
    """
    significant = digits.lstrip("0")
    if len(significant) > 19 or int(significant or "0") > _MAX_VERSION:
        raise invalid(f"Failed to convert version: {digits[:100]} to numeric.")
    return int(significant or "0")
