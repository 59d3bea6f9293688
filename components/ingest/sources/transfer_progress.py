"""The progress of a download: a bar on a terminal, a few plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import Progress

from regraft_core.runtime.step_reports import log_progress

Advance = Callable[[int, int | None], None]
LINE_EVERY_S = 15.0


@contextlib.contextmanager
def transfer_progress(name: str) -> Iterator[Advance]:
    """Yield a function to call with the bytes so far and the bytes in total (None if unknown)."""
    if not sys.stderr.isatty():
        yield _log_lines(name)
        return
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(name, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _log_lines(name: str) -> Advance:
    last_s = time.monotonic()

    def advance(done: int, total: int | None) -> None:
        nonlocal last_s
        if time.monotonic() - last_s >= LINE_EVERY_S:
            last_s = time.monotonic()
            of_total = f" of {total >> 20} MB ({done / total:.0%})" if total else " MB"
            log_progress(f"ingest: {name}: {done >> 20}{of_total}")

    return advance
