"""The time of a head in a budget: its part of it, and which fits it still has time for."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any

from regraft_core.formats.option_parsing import parse_duration
from regraft_core.runtime.step_reports import Clock

# The rest is for fine-tuning, which gains more from it if images are many; if they are few, the
# head needs less.
HEAD_FRACTION = 0.15
# A fit that takes less than this fraction of the head's time is never skipped: it gains more than
# the few steps of training that it costs.
SHORT_FRACTION = 0.2
# A fit may take so many times as long as one of as many rows did before.
MARGIN = 1.25


@dataclass
class HeadTime:
    """What a head may take, and what it skipped to end in time.

    Attributes:
        limit_s: the seconds for all fits; each fit is solved to its end, so that it is the number
            of rows and of fits that follows from them.
        clock: the time that the head has taken.
        row_s: seconds of the last fit for each of its rows.
        rows: those of the last fit.
        skipped: what there was no time for.
    """

    limit_s: float
    clock: Clock
    row_s: float = 0.0
    rows: int = 0
    skipped: list[str] = field(default_factory=list)

    @classmethod
    def of_budget(cls, budget: str, extraction_s: float, clock: Clock) -> HeadTime | None:
        """Return the part of what extraction has left; None without a budget."""
        if not budget:
            return None
        left_s = max(parse_duration(budget) - extraction_s, 0.0)
        return cls(HEAD_FRACTION * left_s, clock)

    @property
    def left_s(self) -> float:
        """The seconds that are left, below 0 if it took more."""
        return self.limit_s - self.clock.seconds

    def measure(self, rows: int, seconds: float) -> None:
        """Note the speed of a fit."""
        self.rows, self.row_s = rows, seconds / rows

    def affordable_rows(self) -> int:
        """Return how many rows a fit can have, at the speed of the last one, if there was one."""
        seconds = max(self.left_s, SHORT_FRACTION * self.limit_s)
        return int(seconds / (MARGIN * self.row_s)) if self.row_s else sys.maxsize

    def allows(self, rows: int, what: str) -> bool:
        """Return whether there is time for a fit; otherwise `what` is noted as skipped."""
        if rows <= self.affordable_rows():
            return True
        self.skipped.append(what)
        return False

    def sentence(self) -> str:
        """Return what was skipped, and why; empty if nothing was."""
        if not self.skipped:
            return ""
        return (
            f"The head may take {self.limit_s:.0f} s of the budget, so that fine-tuning has the "
            f"rest. Skipped: {', '.join(self.skipped)}."
        )

    def measurements(self) -> dict[str, Any]:
        """Return what the clock decided, for the manifest."""
        return {"limit_s": self.limit_s, "rows": self.rows, "skipped": self.skipped}
