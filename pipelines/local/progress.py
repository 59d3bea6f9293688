"""Progress on standard error: on a terminal the last line is live, elsewhere all are plain."""

from __future__ import annotations

import shutil
import sys

ERASE = "\r\x1b[K"


class Progress:
    """Prints lines beside the results, which go to standard output."""

    def __init__(self) -> None:
        self.live = sys.stderr.isatty()
        self._shown = False

    def line(self, text: str) -> None:
        """Print a line that stays."""
        self.end()
        print(text, file=sys.stderr, flush=True)

    def now(self, text: str) -> None:
        """Show a line until the next one, where `live`."""
        if not self.live:
            return
        columns = shutil.get_terminal_size().columns
        print(f"{ERASE}{text[: columns - 1]}", end="", file=sys.stderr, flush=True)
        self._shown = True

    def end(self) -> None:
        """Remove what is shown live."""
        if self._shown:
            print(ERASE, end="", file=sys.stderr, flush=True)
        self._shown = False
