"""The error of one file: it is left out with a reason, and the run goes on."""

from __future__ import annotations

from regraft_core.runtime.errors import DataError


class InvalidImageError(DataError):
    """A file that cannot be used: `reason` is a fixed word, `detail` says more."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
