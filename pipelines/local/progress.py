"""Progress on standard error: on a terminal the last line is live, elsewhere all are plain."""

from __future__ import annotations

import shutil
import sys

from regraft_core.runtime.printable import one_line

ERASE = "\r\x1b[K"


class Progress:
    """Prints lines on standard error; the results go to standard output."""

    def __init__(self) -> None:
        self.is_live = sys.stderr.isatty()
        self._shown = False

    def line(self, text: str) -> None:
        """Print a line that stays."""
        self.close()
        print(one_line(text), file=sys.stderr, flush=True)

    def live(self, text: str) -> None:
        """Show a line until the next one."""
        columns = shutil.get_terminal_size().columns
        print(f"{ERASE}{one_line(text)[: columns - 1]}", end="", file=sys.stderr, flush=True)
        self._shown = True

    def close(self) -> None:
        """Remove the live line, if one is shown."""
        if self._shown:
            print(ERASE, end="", file=sys.stderr, flush=True)
        self._shown = False
