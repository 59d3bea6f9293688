"""Work of several processes that starts again, from what it has saved, when one of them is lost."""

from __future__ import annotations

from collections.abc import Callable

from regraft_core.parallel.executor import ATTEMPTS
from regraft_core.runtime.errors import RegraftError
from regraft_core.runtime.step_reports import log_progress


class Attempts:
    """Counts the attempts since the work has last saved something.

    Args:
        what: the work, for reports.
        saved: returns a value that changes when the work saves something.
    """

    def __init__(self, what: str, saved: Callable[[], object]) -> None:
        self._what, self._saved = what, saved
        self._last, self._failed = saved(), 0

    def lose(self, cause: str) -> None:
        """Report that an attempt has ended by the loss of a process.

        Raises:
            RegraftError: several attempts have ended without anything new being saved.
        """
        saved = self._saved()
        self._failed = 0 if saved != self._last else self._failed + 1
        self._last = saved
        if self._failed == ATTEMPTS:
            raise RegraftError(
                f"{self._what}: processes were lost in {ATTEMPTS} attempts without progress "
                f"({cause}); do the nodes have enough memory?"
            )
        log_progress(
            f"{self._what}: a process was lost ({cause}); all start again from the last checkpoint"
        )
