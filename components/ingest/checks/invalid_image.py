"""The error of one file, which is then quarantined while ingest goes on."""

from __future__ import annotations

from regraft_core.runtime.errors import DataError


class InvalidImageError(DataError):
    """A file that cannot be used; `reason` is one of a few fixed words, `detail` explains it."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
