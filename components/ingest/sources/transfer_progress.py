"""How far a long transfer is: a bar on a terminal, a few plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import Progress

from regraft_core.runtime.step import log_progress

Advance = Callable[[int, int | None], None]
LINE_EVERY_S = 15.0


@contextlib.contextmanager
def transfer_progress(name: str) -> Iterator[Advance]:
    """Yield a function that takes the bytes so far and the bytes in all (None if not known)."""
    if not sys.stderr.isatty():
        yield _lines(name)
        return
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(name, total=None)

        def advance(done: int, total: int | None) -> None:
            progress.update(task, completed=done, total=total)

        yield advance


def _lines(name: str) -> Advance:
    last = time.monotonic()

    def advance(done: int, total: int | None) -> None:
        nonlocal last
        if time.monotonic() - last >= LINE_EVERY_S:
            last = time.monotonic()
            share = f" of {total >> 20} MB ({done / total:.0%})" if total else " MB"
            log_progress(f"ingest: {name}: {done >> 20}{share}")

    return advance
